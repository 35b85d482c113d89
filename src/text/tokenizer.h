#pragma once
// Text to token ids and back.
//
// A Tokenizer is made from a tokenizer.json (Hugging Face), a tokenizer.model (SentencePiece), a file of ranks
// (tiktoken) or the vocabulary inside a GGUF file, and gives the same ids as the Python package that reads the same
// file.
//
//   LANNER_ASSIGN_OR_RETURN(auto tokenizer, Tokenizer::from_json(json_text, "model/tokenizer.json"));
//   LANNER_ASSIGN_OR_RETURN(std::vector<std::int32_t> ids, tokenizer->encode("Hello", {}));
//   LANNER_ASSIGN_OR_RETURN(std::string text, tokenizer->decode(ids, /*skip_special_tokens=*/true));
//
// Ownership: shared; whoever needs it keeps a shared_ptr.
// Threads: immutable; every method may be called from any thread at the same time.
// Errors: files are not trusted. A bad one is kCorrupt (or kUnsupported when it asks for something unknown), with
//   `origin` in front of the message. Text for streaming goes through IncrementalDetokenizer (detokenizer.h).

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "text/bpe_vocabulary.h"
#include "text/sentencepiece_model.h"
#include "text/tokenizer_rules.h"

namespace lanner {

struct EncodeOptions {
  /// Let the tokenizer put BOS, EOS or whatever its file asks for around the text.
  bool add_special_tokens = true;
  /// Text that spells a special token, such as "<|im_end|>", becomes that token. Switch it off for text that comes
  /// from users: then the spelling is tokenized like any other text.
  bool parse_special = true;
};

class Tokenizer {
 public:
  /// `tokenizer_json` is the content of the file; `origin` (its path) only serves error messages.
  static Result<std::shared_ptr<const Tokenizer>> from_json(std::string_view tokenizer_json, std::string_view origin);
  /// The vocabulary of a GGUF file whose tokenizer.ggml.model is "gpt2". An unknown pre-tokenizer is kUnsupported.
  static Result<std::shared_ptr<const Tokenizer>> from_bpe_vocabulary(const BpeVocabulary& vocabulary,
                                                                      std::string_view origin);
  /// A SentencePiece model, of a tokenizer.model or of a GGUF file whose tokenizer.ggml.model is "llama".
  static Result<std::shared_ptr<const Tokenizer>> from_sentencepiece(SentencePieceModel model, SentencePieceRules rules,
                                                                     std::string_view origin);
  /// `ranks_file` is the content of a file of tiktoken's kind: lines of a token in base64, a blank, and its rank.
  static Result<std::shared_ptr<const Tokenizer>> from_tiktoken(std::string_view ranks_file, TiktokenRules rules,
                                                                std::string_view origin);

  Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  virtual ~Tokenizer() = default;

  /// kInvalidArgument, with the offset of the first bad byte, when the text is not UTF-8; also beyond 64 MiB (16 MiB
  /// for SentencePiece, which takes a hundred times that in memory).
  virtual Result<std::vector<std::int32_t>> encode(std::string_view utf8, const EncodeOptions& options) const = 0;
  /// Ids that have no token are left out, negative ids are kInvalidArgument. Bytes that form no UTF-8 become U+FFFD.
  virtual Result<std::string> decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const = 0;

  /// Highest id + 1, added tokens included. A model's head may have more rows than that.
  virtual std::int32_t vocab_size() const = 0;
  /// The id of a piece spelled as in the vocabulary (byte-level pieces: "Ġhello", not " hello").
  virtual std::optional<std::int32_t> token_id(std::string_view piece) const = 0;
  /// The piece of an id, spelled as in the vocabulary; kInvalidArgument when there is none.
  virtual Result<std::string> piece(std::int32_t id) const = 0;
  virtual bool is_special(std::int32_t id) const = 0;
  /// True for a piece like <0xE4> of a tokenizer whose decoder joins a run of them into text, all or nothing: the
  /// text of such a run is known only at its end.
  virtual bool is_byte_run_token(std::int32_t id) const = 0;
  /// How many U+FFFD at the end of a decoded text may be one character whose last bytes have not come yet.
  virtual std::size_t replacements_at_risk() const { return 1; }
};

}  // namespace lanner
