#pragma once
// A SentencePiece model with added tokens. Made by Tokenizer::from_sentencepiece (tokenizer.h).
//
// The library cuts ordinary text into pieces; what makes a language model's tokenizer of it is here: added tokens,
// BOS and EOS, where the dummy prefix goes. Decoding is done here too, as the library does it: the library knows no
// added tokens and hides control pieces.

#include <memory>
#include <unordered_map>

#include "text/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}  // namespace sentencepiece

namespace lanner {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  static Result<std::shared_ptr<const Tokenizer>> make(SentencePieceModel model, SentencePieceRules rules);
  ~SentencePieceTokenizer() override;

  Result<std::vector<std::int32_t>> encode(std::string_view utf8, const EncodeOptions& options) const override;
  Result<std::string> decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const override;
  std::int32_t vocab_size() const override;
  std::optional<std::int32_t> token_id(std::string_view piece) const override;
  Result<std::string> piece(std::int32_t id) const override;
  bool is_special(std::int32_t id) const override;
  /// The bytes of a run are joined one character at a time: what is whole stays, whatever comes behind it.
  bool is_byte_run_token(std::int32_t /*id*/) const override { return false; }
  std::size_t replacements_at_risk() const override { return 3; }  // a character of four bytes, one of them missing

 private:
  SentencePieceTokenizer() = default;
  Status load(SentencePieceModel model, SentencePieceRules rules);
  Status encode_stretch(std::string_view text, bool at_beginning, std::vector<std::int32_t>& ids) const;
  const SentencePiece* model_piece(std::int32_t id) const;

  std::vector<SentencePiece> pieces_;                           // (vocabulary of the model)
  std::unordered_map<std::string_view, std::int32_t> by_text_;  // points into pieces_
  AddedTokens added_;
  SentencePieceRules rules_;  // without its added tokens, which are in added_
  bool drops_leading_blank_ = false;
  bool drops_leading_blanks_ = false;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> with_prefix_;     // as the model says
  std::unique_ptr<sentencepiece::SentencePieceProcessor> without_prefix_;  // null where it is never needed
};

}  // namespace lanner
