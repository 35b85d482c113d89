#include "model/random_weights.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <mutex>
#include <random>
#include <utility>

#include "core/float16.h"
#include "model/group_quantization.h"
#include "model/json_reader.h"
#include "model/model_folder.h"

namespace lanner::model {
namespace {

constexpr double kDeviation = 0.02;
constexpr std::int64_t kMostShift = 1 << 16;  // elements by which matrices' beginnings differ
constexpr std::int64_t kLargestMatrix = std::int64_t{1} << 34;
constexpr std::int64_t kUsualGroup = 32;  // columns that share a scale, where only the format is asked for

/// Random numbers of one format, made when they are first asked for, and more when more are.
class RandomNumbers {
 public:
  explicit RandomNumbers(ops::WeightFormat format) : format_(format) {}

  std::int64_t element_bytes() const { return format_ == ops::WeightFormat::kF32 ? 4 : 2; }

  std::shared_ptr<const std::vector<std::byte>> at_least(std::int64_t count) {
    const std::lock_guard lock(mutex_);
    const auto bytes = static_cast<std::size_t>(count * element_bytes());
    if (numbers_ == nullptr || numbers_->size() < bytes) numbers_ = make(count);
    return numbers_;
  }

 private:
  /// A sum of four bytes is near enough to normal, and a word gives two.
  std::shared_ptr<const std::vector<std::byte>> make(std::int64_t count) const {
    auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(count * element_bytes()));
    std::mt19937_64 random(1);
    const double byte_deviation = std::sqrt(4.0 * (256.0 * 256.0 - 1.0) / 12.0);
    const auto step = static_cast<float>(kDeviation / byte_deviation);
    std::uint64_t word = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      word = i % 2 == 0 ? random() : word >> 32U;
      const auto sum =
          static_cast<int>((word & 255U) + (word >> 8U & 255U) + (word >> 16U & 255U) + (word >> 24U & 255U));
      write(bytes->data(), i, step * static_cast<float>(sum - 510));
    }
    return bytes;
  }
  void write(std::byte* to, std::int64_t index, float value) const {
    if (format_ == ops::WeightFormat::kF32) {
      std::memcpy(to + index * 4, &value, sizeof(value));
      return;
    }
    const std::uint16_t bits = format_ == ops::WeightFormat::kF16 ? to_half(value).bits : to_bfloat16(value).bits;
    std::memcpy(to + index * 2, &bits, sizeof(bits));
  }

  const ops::WeightFormat format_;
  std::mutex mutex_;
  std::shared_ptr<const std::vector<std::byte>> numbers_;
};

/// Whether a tensor's name has a layer's number, as in "model.layers.3.mlp.up_proj.weight".
bool is_of_a_layer(std::string_view name) {
  for (std::size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1)) {
    if (dot + 1 < name.size() && name[dot + 1] >= '0' && name[dot + 1] <= '9') return true;
  }
  return false;
}

/// What the matrices are of.
struct Formats {
  ops::WeightFormat dense = ops::WeightFormat::kF16;
  ops::WeightFormat layers = ops::WeightFormat::kF16;  // of their matrices: as dense, kInt4 or kInt8
  std::int64_t group = 0;                              // columns that share a scale, where they are quantized
};

class RandomWeights final : public Checkpoint {
 public:
  RandomWeights(std::string folder, Json config, const Formats& formats)
      : folder_(std::move(folder)), config_(std::move(config)), formats_(formats), numbers_(formats.dense) {}

  CheckpointKind kind() const override { return CheckpointKind::kFolder; }
  const std::string& path() const override { return folder_; }
  const Json& config() const override { return config_; }
  const Json& generation_config() const override { return generation_config_; }

  /// What a model may have or not, it has not.
  bool has_tensor(std::string_view) const override { return false; }
  std::int64_t tensor_bytes() const override { return 0; }  // nothing lies in a file
  Status check_matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    if (rows > 0 && cols > 0 && rows <= kLargestMatrix / cols) return {};
    return unsupported(fmt::format("{}: {}: ({}, {}) is too large", folder_, name, rows, cols));
  }
  Status check_vector(std::string_view, std::int64_t) const override { return {}; }

  Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    LANNER_RETURN_IF_ERROR(check_matrix(name, rows, cols));
    // As quantized checkpoints have it: the matrices of layers, but neither the embedding nor the head.
    if (ops::is_quantized(formats_.layers) && is_of_a_layer(name)) return quantized_matrix(name, rows, cols);
    auto numbers = numbers_.at_least(rows * cols + kMostShift);
    const auto shift = static_cast<std::int64_t>(std::hash<std::string_view>{}(name) % kMostShift);
    ops::WeightSource source;
    source.format = formats_.dense;
    source.rows = rows;
    source.cols = cols;
    source.dense = numbers->data() + shift * numbers_.element_bytes();
    source.owner = std::move(numbers);
    return source;
  }
  Result<std::vector<float>> vector(std::string_view name, std::int64_t size) const override {
    return std::vector<float>(static_cast<std::size_t>(size), name.ends_with("bias") ? 0.0F : 1.0F);
  }

  Result<std::shared_ptr<const Tokenizer>> tokenizer() const override {
    return unsupported(folder_ + ": a model of random weights has no tokenizer");
  }
  std::optional<std::string> chat_template() const override { return std::nullopt; }
  SpecialTokens special_tokens() const override { return {}; }

 private:
  Result<ops::WeightSource> quantized_matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const {
    const std::int64_t group = formats_.group;
    if (cols % group != 0) {
      return unsupported(fmt::format("{}: {}: {} columns in groups of {}", folder_, name, cols, group));
    }
    // int4: codes of 0 to 15 around a zero point of 8; int8: all of them. With the usual deviation; scales are exact in
    // fp16.
    const bool nibbles = formats_.layers == ops::WeightFormat::kInt4;
    const std::size_t bits = nibbles ? 4 : 8;
    const float scale = nibbles ? 1.0F / 256 : 1.0F / 4096;
    constexpr float kZero = 8;
    ops::WeightSource source;
    source.format = formats_.layers;
    source.rows = rows;
    source.cols = cols;
    source.group = group;
    source.codes.resize(static_cast<std::size_t>(rows * cols));
    std::mt19937_64 random(std::hash<std::string_view>{}(name));
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < source.codes.size(); ++i) {
      word = i % (64 / bits) == 0 ? random() : word >> bits;
      source.codes[i] = static_cast<std::uint8_t>(word & ((1U << bits) - 1));
    }
    source.scales.assign(source.codes.size() / static_cast<std::size_t>(group), scale);
    if (nibbles) source.offsets.assign(source.scales.size(), -kZero * scale);
    return source;
  }

  const std::string folder_;
  const Json config_;
  const Json generation_config_ = Json::object();
  const Formats formats_;
  mutable RandomNumbers numbers_;
};

ops::WeightFormat stored_format(const Json& config) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto found = config.find(key);
    if (found == config.end() || !found->is_string()) continue;
    if (*found == "bfloat16") return ops::WeightFormat::kBF16;
    if (*found == "float32") return ops::WeightFormat::kF32;
  }
  return ops::WeightFormat::kF16;
}

}  // namespace

Result<std::shared_ptr<const Checkpoint>> open_random_weights(const std::string& folder,
                                                              std::optional<ops::WeightFormat> wanted) {
  LANNER_ASSIGN_OR_RETURN(Json config, read_folder_object(folder, "config.json"));
  Formats formats;
  formats.dense = stored_format(config);
  if (wanted) {
    if (!ops::is_quantized(*wanted)) formats.dense = *wanted;
    formats.layers = *wanted;
    formats.group = kUsualGroup;
  } else if (config.contains("quantization_config")) {
    LANNER_ASSIGN_OR_RETURN(const GroupQuantization quantization,
                            read_group_quantization(config, Json::object(), ModelFormat::kPlain, folder));
    if (quantization.bits != 4 || quantization.group <= 0) {
      return unsupported(folder +
                         "/config.json: quantization_config: random weights are dense, or of 4 bits in groups");
    }
    formats.layers = ops::WeightFormat::kInt4;
    formats.group = quantization.group;
  }
  return std::shared_ptr<const Checkpoint>(std::make_shared<RandomWeights>(folder, std::move(config), formats));
}

}  // namespace lanner::model
