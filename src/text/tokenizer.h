#pragma once
// Text to token ids and back.
//
// A Tokenizer is made from a tokenizer.json (Hugging Face) or from the vocabulary inside a GGUF file, and gives the
// same ids as the Python package `tokenizers` does for the same file.
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

struct LannerTokenizer;  // lanner_text.h

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

  /// kInvalidArgument, with the offset of the first bad byte, when the text is not UTF-8; also beyond 64 MiB.
  Result<std::vector<std::int32_t>> encode(std::string_view utf8, const EncodeOptions& options) const;
  /// Ids that have no token are left out, negative ids are kInvalidArgument. Bytes that form no UTF-8 become U+FFFD.
  Result<std::string> decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const;

  /// Highest id + 1, added tokens included. A model's head may have more rows than that.
  std::int32_t vocab_size() const;
  /// The id of a piece spelled as in the vocabulary (byte-level pieces: "Ġhello", not " hello").
  std::optional<std::int32_t> token_id(std::string_view piece) const;
  /// The piece of an id, spelled as in the vocabulary; kInvalidArgument when there is none.
  Result<std::string> piece(std::int32_t id) const;
  bool is_special(std::int32_t id) const;
  /// True for a piece like <0xE4> of a tokenizer whose decoder joins a run of them into text, all or nothing: the
  /// text of such a run is known only at its end.
  bool is_byte_run_token(std::int32_t id) const;

 private:
  struct Release {
    void operator()(LannerTokenizer* handle) const;
  };
  explicit Tokenizer(LannerTokenizer* handle) : handle_(handle) {}

  std::unique_ptr<LannerTokenizer, Release> handle_;
};

}  // namespace lanner
