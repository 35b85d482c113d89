#pragma once
// A tokenizer.json behind the Rust crate. Made by Tokenizer::from_json (tokenizer.h).

#include <memory>

#include "text/lanner_text.h"
#include "text/tokenizer.h"

namespace lanner {

class JsonTokenizer final : public Tokenizer {
 public:
  static Result<std::shared_ptr<const Tokenizer>> make(std::string_view tokenizer_json);

  Result<std::vector<std::int32_t>> encode(std::string_view utf8, const EncodeOptions& options) const override;
  Result<std::string> decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const override;
  std::int32_t vocab_size() const override;
  std::optional<std::int32_t> token_id(std::string_view piece) const override;
  Result<std::string> piece(std::int32_t id) const override;
  bool is_special(std::int32_t id) const override;
  bool is_byte_run_token(std::int32_t id) const override;

 private:
  struct Release {
    void operator()(LannerTokenizer* handle) const { lanner_tokenizer_free(handle); }
  };
  explicit JsonTokenizer(LannerTokenizer* handle) : handle_(handle) {}

  std::unique_ptr<LannerTokenizer, Release> handle_;
};

}  // namespace lanner
