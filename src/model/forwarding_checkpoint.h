#pragma once
// A checkpoint that hands everything on to another, to be derived from by those that look at something on its way, or
// change it. Borrows the other one.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint.h"

namespace lanner::model {

class ForwardingCheckpoint : public Checkpoint {
 public:
  explicit ForwardingCheckpoint(const Checkpoint& source) : source_(source) {}

  CheckpointKind kind() const override { return source_.kind(); }
  const std::string& path() const override { return source_.path(); }
  const nlohmann::ordered_json& config() const override { return source_.config(); }
  const nlohmann::ordered_json& generation_config() const override { return source_.generation_config(); }
  bool is_packed() const override { return source_.is_packed(); }
  bool has_tensor(std::string_view name) const override { return source_.has_tensor(name); }
  std::int64_t tensor_bytes() const override { return source_.tensor_bytes(); }
  Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    return source_.matrix(name, rows, cols);
  }
  Result<std::vector<float>> vector(std::string_view name, std::int64_t size) const override {
    return source_.vector(name, size);
  }
  Status check_matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    return source_.check_matrix(name, rows, cols);
  }
  Status check_vector(std::string_view name, std::int64_t size) const override {
    return source_.check_vector(name, size);
  }
  Result<std::shared_ptr<const Tokenizer>> tokenizer() const override { return source_.tokenizer(); }
  std::optional<std::string> chat_template() const override { return source_.chat_template(); }
  SpecialTokens special_tokens() const override { return source_.special_tokens(); }

 protected:
  const Checkpoint& source() const { return source_; }

 private:
  const Checkpoint& source_;
};

}  // namespace lanner::model
