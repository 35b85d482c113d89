#pragma once
// A Checkpoint made of values, for tests and fuzzing: a configuration and the shapes of its tensors.

#include <fmt/format.h>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/checkpoint.h"
#include "model/json_reader.h"
#include "model/tensor_view.h"

namespace lanner::model {

/// Public members: set them before use. Matrices and vectors are zeros unless `values` has them.
class FakeCheckpoint final : public Checkpoint {
 public:
  CheckpointKind kind_value = CheckpointKind::kFolder;
  Json config_value = Json::object();
  Json generation_value = Json::object();
  std::map<std::string, std::vector<std::int64_t>, std::less<>> shapes;
  std::map<std::string, std::vector<float>, std::less<>> values;
  bool has_every_tensor = false;  // of whatever shape is asked for
  /// What else happens to a matrix before it is handed out, such as quantizing it.
  std::function<void(std::string_view name, ops::WeightSource& source)> alter;

  CheckpointKind kind() const override { return kind_value; }
  const std::string& path() const override { return path_; }
  const Json& config() const override { return config_value; }
  const Json& generation_config() const override { return generation_value; }
  bool has_tensor(std::string_view name) const override { return shapes.contains(name); }
  std::int64_t tensor_bytes() const override { return 0; }

  Status check_matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    return check(name, std::array{rows, cols});
  }
  Status check_vector(std::string_view name, std::int64_t size) const override { return check(name, std::array{size}); }
  Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    LANNER_RETURN_IF_ERROR(check_matrix(name, rows, cols));
    const auto copy = std::make_shared<const std::vector<float>>(elements(name, rows * cols));
    auto source =
        dense_matrix(ops::WeightFormat::kF32, reinterpret_cast<const std::byte*>(copy->data()), rows, cols, copy);
    if (alter) alter(name, source);
    return source;
  }
  Result<std::vector<float>> vector(std::string_view name, std::int64_t size) const override {
    LANNER_RETURN_IF_ERROR(check_vector(name, size));
    return elements(name, size);
  }
  Result<std::shared_ptr<const Tokenizer>> tokenizer() const override { return not_found("fake: no tokenizer"); }
  std::optional<std::string> chat_template() const override { return std::nullopt; }
  SpecialTokens special_tokens() const override { return {}; }

 private:
  std::vector<float> elements(std::string_view name, std::int64_t count) const {
    const auto found = values.find(name);
    return found != values.end() ? found->second : std::vector<float>(static_cast<std::size_t>(count));
  }
  Status check(std::string_view name, std::span<const std::int64_t> shape) const {
    if (has_every_tensor) return {};
    const auto found = shapes.find(name);
    if (found == shapes.end()) return not_found(fmt::format("{}: {}: is missing", path_, name));
    return check_shape(fmt::format("{}: {}", path_, name), found->second, shape);
  }

  std::string path_ = "fake";
};

}  // namespace lanner::model
