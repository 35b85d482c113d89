#pragma once
// Byte-pair encoding by rank, as the Python package tiktoken does it. Made by Tokenizer::from_tiktoken (tokenizer.h).
//
// There is no list of merges: two neighbours may become one token whenever their bytes together are one, and the lowest
// rank goes first, the leftmost place among equals. A list of merges cannot say the latter.

#include <memory>
#include <unordered_map>

#include "text/lanner_text.h"
#include "text/tokenizer.h"

namespace lanner {

class TiktokenTokenizer final : public Tokenizer {
 public:
  static Result<std::shared_ptr<const Tokenizer>> make(std::string_view ranks_file, TiktokenRules rules);

  Result<std::vector<std::int32_t>> encode(std::string_view utf8, const EncodeOptions& options) const override;
  Result<std::string> decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const override;
  std::int32_t vocab_size() const override;
  /// Pieces are spelled as GPT-2 spells bytes: their own may be no text.
  std::optional<std::int32_t> token_id(std::string_view piece) const override;
  Result<std::string> piece(std::int32_t id) const override;
  bool is_special(std::int32_t id) const override;
  bool is_byte_run_token(std::int32_t /*id*/) const override { return false; }

 private:
  struct Release {
    void operator()(LannerWords* handle) const { lanner_words_free(handle); }
  };

  TiktokenTokenizer() = default;
  Status load(std::string_view ranks_file, TiktokenRules rules);
  Status add_line(std::string_view line, std::size_t number);
  Status encode_stretch(std::string_view text, std::vector<std::int32_t>& ids) const;
  void encode_word(std::string_view word, std::vector<std::int32_t>& ids) const;
  /// The rank of these bytes as one token, or -1.
  std::int32_t rank(std::string_view bytes) const;

  std::unordered_map<std::int32_t, std::string> bytes_;       // rank to token
  std::unordered_map<std::string_view, std::int32_t> ranks_;  // points into bytes_, whose nodes stay where they are
  std::size_t longest_ = 0;                                   // bytes of the longest token
  std::int32_t end_rank_ = 0;                                 // highest rank + 1
  AddedTokens added_;
  TiktokenRules rules_;  // without its added tokens, which are in added_
  std::unique_ptr<LannerWords, Release> words_;
};

}  // namespace lanner
