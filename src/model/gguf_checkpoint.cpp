#include "model/gguf_checkpoint.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "model/gguf.h"
#include "model/gguf_blocks.h"
#include "model/gguf_metadata.h"
#include "model/gguf_vocabulary.h"
#include "model/tensor_view.h"

namespace lanner::model {
namespace {

class GgufCheckpoint final : public Checkpoint {
 public:
  GgufCheckpoint(Gguf gguf, std::shared_ptr<const void> owner, Json config, Json generation_config)
      : gguf_(std::move(gguf)),
        owner_(std::move(owner)),
        config_(std::move(config)),
        generation_config_(std::move(generation_config)) {}

  CheckpointKind kind() const override { return CheckpointKind::kGguf; }
  const std::string& path() const override { return gguf_.path; }
  const Json& config() const override { return config_; }
  const Json& generation_config() const override { return generation_config_; }

  bool has_tensor(std::string_view name) const override { return gguf_.tensors.contains(name); }

  std::int64_t tensor_bytes() const override {
    std::int64_t bytes = 0;
    for (const auto& [name, tensor] : gguf_.tensors) bytes += static_cast<std::int64_t>(tensor.bytes.size());
    return bytes;
  }

  Status check_matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    return find(name, std::array{rows, cols}).status();
  }

  Status check_vector(std::string_view name, std::int64_t size) const override {
    return find_dense(name, size).status();
  }

  Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    LANNER_ASSIGN_OR_RETURN(const GgufTensor* tensor, find(name, std::array{rows, cols}));
    return unpack_gguf_matrix(*tensor, owner_, where(name));
  }

  Result<std::vector<float>> vector(std::string_view name, std::int64_t size) const override {
    LANNER_ASSIGN_OR_RETURN(const GgufTensor* tensor, find_dense(name, size));
    LANNER_ASSIGN_OR_RETURN(const auto format, gguf_format(tensor->type, where(name)));
    return widen(where(name), format, tensor->bytes.data(), size);
  }

  Result<std::shared_ptr<const Tokenizer>> tokenizer() const override { return gguf_tokenizer(gguf_); }

  std::optional<std::string> chat_template() const override { return gguf_chat_template(gguf_); }
  SpecialTokens special_tokens() const override { return gguf_special_tokens(gguf_); }

 private:
  std::string where(std::string_view name) const { return fmt::format("{}: {}", gguf_.path, name); }

  /// The tensor, when its shape is `shape` and its type one that can be read.
  Result<const GgufTensor*> find(std::string_view name, std::span<const std::int64_t> shape) const {
    const auto found = gguf_.tensors.find(name);
    if (found == gguf_.tensors.end()) return not_found(fmt::format("{}: is missing", where(name)));
    const GgufTensor& tensor = found->second;
    LANNER_RETURN_IF_ERROR(check_shape(where(name), tensor.shape, shape));
    LANNER_RETURN_IF_ERROR(gguf_format(tensor.type, where(name)).status());
    return &tensor;
  }

  Result<const GgufTensor*> find_dense(std::string_view name, std::int64_t size) const {
    LANNER_ASSIGN_OR_RETURN(const GgufTensor* tensor, find(name, std::array{size}));
    LANNER_ASSIGN_OR_RETURN(const auto format, gguf_format(tensor->type, where(name)));
    if (ops::is_quantized(format)) {
      return unsupported(fmt::format("{}: a vector of type {}", where(name), tensor->type.name));
    }
    return tensor;
  }

  Gguf gguf_;
  std::shared_ptr<const void> owner_;
  Json config_;
  Json generation_config_;
};

}  // namespace

Result<std::shared_ptr<const Checkpoint>> make_gguf_checkpoint(std::span<const std::byte> file,
                                                               std::shared_ptr<const void> owner,
                                                               const std::string& path) {
  LANNER_ASSIGN_OR_RETURN(Gguf gguf, parse_gguf(file, path));
  LANNER_ASSIGN_OR_RETURN(Json config, gguf_config(gguf));
  LANNER_ASSIGN_OR_RETURN(Json generation_config, gguf_generation_config(gguf));
  return std::shared_ptr<const Checkpoint>(std::make_shared<GgufCheckpoint>(
      std::move(gguf), std::move(owner), std::move(config), std::move(generation_config)));
}

}  // namespace lanner::model
