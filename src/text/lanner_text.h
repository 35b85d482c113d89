#pragma once
/* The C border of the Rust crate in rust/ (Hugging Face `tokenizers`, `minijinja`, `llguidance`). Only src/text
 * includes it.
 *
 * Ownership: a handle or a buffer that a function writes through an out pointer belongs to the caller, who gives it
 *   back with the matching lanner_*_free. Slices are borrowed for the length of the call and need no terminator.
 * Threads: every function with a const handle may be called from any thread at the same time.
 * Errors: LANNER_TEXT_OK, or another code with one line of UTF-8 in *error (owned by the caller); out values are
 *   left alone then. A panic inside Rust is caught and comes back as LANNER_TEXT_INTERNAL.
 * Pointers must not be null, except the data of an empty slice and the argument of a free function.
 *
 *   LannerTokenizer* tokenizer = NULL;
 *   LannerBuffer error = {NULL, 0};
 *   if (lanner_tokenizer_from_json(json, &tokenizer, &error) != LANNER_TEXT_OK) { ...; lanner_buffer_free(error); }
 *   lanner_tokenizer_free(tokenizer);
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* NOLINTBEGIN(modernize-use-using): C has no other way. */
typedef struct LannerTokenizer LannerTokenizer;
typedef struct LannerTemplate LannerTemplate;
typedef struct LannerWords LannerWords;
typedef struct LannerVocabulary LannerVocabulary;
typedef struct LannerGrammar LannerGrammar;

typedef struct LannerSlice {
  const uint8_t* data;
  size_t size;
} LannerSlice;

typedef struct LannerBuffer {
  uint8_t* data;
  size_t size;
} LannerBuffer;

typedef struct LannerIds {
  int32_t* data;
  size_t size;
} LannerIds;
/* NOLINTEND(modernize-use-using) */

/* Matched by the constants in rust/src/ffi.rs. */
enum {
  LANNER_TEXT_OK = 0,
  LANNER_TEXT_INVALID_ARGUMENT = 1,
  LANNER_TEXT_CORRUPT = 2,
  LANNER_TEXT_UNSUPPORTED = 3,
  LANNER_TEXT_RESOURCE_EXHAUSTED = 4,
  LANNER_TEXT_INTERNAL = 5
};

void lanner_buffer_free(LannerBuffer buffer);
void lanner_ids_free(LannerIds ids);

/* ---- tokenizers ---- */

/* `json` is the text of a tokenizer.json. Truncation, padding and BPE dropout that it may ask for are switched off. */
int32_t lanner_tokenizer_from_json(LannerSlice json, LannerTokenizer** out, LannerBuffer* error);
void lanner_tokenizer_free(LannerTokenizer* tokenizer);

/* add_special_tokens: run the post-processor (BOS, EOS). parse_special: text that spells a special token becomes that
 * token; otherwise it is ordinary text. Text that is not UTF-8 is INVALID_ARGUMENT and the message names the byte. */
int32_t lanner_tokenizer_encode(const LannerTokenizer* tokenizer, LannerSlice text, int32_t add_special_tokens,
                                int32_t parse_special, LannerIds* out, LannerBuffer* error);
/* Ids without a token are left out; negative ids are INVALID_ARGUMENT. The result is UTF-8. */
int32_t lanner_tokenizer_decode(const LannerTokenizer* tokenizer, const int32_t* ids, size_t count,
                                int32_t skip_special_tokens, LannerBuffer* out, LannerBuffer* error);

/* Highest id + 1, added tokens included. */
int32_t lanner_tokenizer_vocab_size(const LannerTokenizer* tokenizer);
/* The id of a piece as it stands in the vocabulary, or -1. */
int32_t lanner_tokenizer_token_id(const LannerTokenizer* tokenizer, LannerSlice piece);
/* The piece of an id as it stands in the vocabulary; INVALID_ARGUMENT when there is none. */
int32_t lanner_tokenizer_piece(const LannerTokenizer* tokenizer, int32_t id, LannerBuffer* out, LannerBuffer* error);
int32_t lanner_tokenizer_is_special(const LannerTokenizer* tokenizer, int32_t id);
/* 1 when the decoder joins runs of tokens such as <0xE4> into text: the text of a run is final only at its end. */
int32_t lanner_tokenizer_joins_byte_runs(const LannerTokenizer* tokenizer);

/* ---- words ---- */

/* An Oniguruma expression whose matches are the words of a text. */
int32_t lanner_words_compile(LannerSlice pattern, LannerWords** out, LannerBuffer* error);
void lanner_words_free(LannerWords* words);
/* The offset behind each word, ascending; the last one is the text's size. What lies between two matches is a word. */
int32_t lanner_words_split(const LannerWords* words, LannerSlice text, LannerIds* out, LannerBuffer* error);
/* The text in Unicode's normalization form C. */
int32_t lanner_text_nfc(LannerSlice text, LannerBuffer* out, LannerBuffer* error);

/* ---- Jinja ---- */

/* Compiles a chat template. The source must be UTF-8 and at most 1 MiB. */
int32_t lanner_template_compile(LannerSlice source, LannerTemplate** out, LannerBuffer* error);
void lanner_template_free(LannerTemplate* compiled);
/* `context` is one JSON object, whose keys are the template's variables. Steps, memory, processor time, stack (1 MiB of
 * the caller's) and output (4 MiB) are limited: beyond them RESOURCE_EXHAUSTED. */
int32_t lanner_template_render(const LannerTemplate* compiled, LannerSlice context, LannerBuffer* out,
                               LannerBuffer* error);

/* The same JSON in the spelling of Python's json.dumps(value, ensure_ascii=False), which models are trained on. */
int32_t lanner_json_as_python(LannerSlice json, LannerBuffer* out, LannerBuffer* error);

/* ---- grammars ---- */

/* Matched by grammar_of() in rust/src/grammar.rs. */
enum { LANNER_GRAMMAR_JSON_SCHEMA = 0, LANNER_GRAMMAR_REGEX = 1, LANNER_GRAMMAR_LARK = 2 };

/* `bytes` are those of all tokens, one behind the other; `sizes` says how many each has. A special token's begin with
 * 0xFF, its name follows; a token without bytes is never allowed. `ends`: the tokens that end an answer. */
int32_t lanner_vocabulary_new(LannerSlice bytes, const uint32_t* sizes, size_t count, const int32_t* ends,
                              size_t end_count, LannerVocabulary** out, LannerBuffer* error);
void lanner_vocabulary_free(LannerVocabulary* vocabulary);

/* A grammar at its beginning; it keeps what it needs of the vocabulary. At most 1 MiB of text, 256 MiB and 0.8 s of
 * processor time. INVALID_ARGUMENT says what is wrong with the text, RESOURCE_EXHAUSTED that it is too complex. */
int32_t lanner_grammar_compile(const LannerVocabulary* vocabulary, int32_t kind, LannerSlice text, LannerGrammar** out,
                               LannerBuffer* error);
/* Another that is as far, and shares nothing that changes. Not at the same time as a call that changes `grammar`. */
int32_t lanner_grammar_copy(const LannerGrammar* grammar, LannerGrammar** out, LannerBuffer* error);
void lanner_grammar_free(LannerGrammar* grammar);
/* Sets bit t % 32 of words[t / 32] for every token t that may come next, and clears the others. An error is for good.
 */
int32_t lanner_grammar_mask(LannerGrammar* grammar, uint32_t* words, size_t count, LannerBuffer* error);
/* The next token has come; *ended becomes 1 when nothing may follow. A token that may not come is an error. */
int32_t lanner_grammar_accept(LannerGrammar* grammar, int32_t token, int32_t* ended, LannerBuffer* error);

#ifdef __cplusplus
}
#endif
