#include "engine/random_checkpoint.h"

#include <cmath>
#include <functional>
#include <limits>
#include <random>

namespace lanner {
namespace {

class RandomCheckpoint final : public model::Checkpoint {
 public:
  explicit RandomCheckpoint(const RandomModel& shape) : shape_(shape) {
    config_ = {{"architectures", {"LlamaForCausalLM"}},
               {"model_type", "llama"},
               {"vocab_size", shape.vocab},
               {"hidden_size", shape.hidden},
               {"intermediate_size", shape.intermediate},
               {"num_hidden_layers", shape.layers},
               {"num_attention_heads", shape.heads},
               {"num_key_value_heads", shape.kv_heads},
               {"max_position_embeddings", shape.max_position},
               {"rms_norm_eps", 1e-5},
               {"rope_theta", 10000.0},
               {"hidden_act", "silu"},
               {"tie_word_embeddings", false}};
  }
  model::CheckpointKind kind() const override { return model::CheckpointKind::kFolder; }
  const std::string& path() const override { return path_; }
  const nlohmann::ordered_json& config() const override { return config_; }
  const nlohmann::ordered_json& generation_config() const override { return generation_config_; }
  bool has_tensor(std::string_view) const override { return true; }
  std::int64_t tensor_bytes() const override { return 1 << 20; }
  Status check_matrix(std::string_view, std::int64_t, std::int64_t) const override { return {}; }
  Status check_vector(std::string_view, std::int64_t) const override { return {}; }

  Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    std::mt19937_64 random(std::hash<std::string_view>{}(name));
    const bool ends = name.find("layers") == std::string_view::npos;  // embedding and head stay fp32
    const float deviation = ends ? 1.0F : 1.5F / std::sqrt(static_cast<float>(cols));
    std::normal_distribution<float> normal(0.0F, deviation);
    ops::WeightSource source;
    source.format = ends ? ops::WeightFormat::kF32 : shape_.format;
    source.rows = rows;
    source.cols = cols;
    const auto count = static_cast<std::size_t>(rows * cols);
    if (!ops::is_quantized(source.format)) {
      auto values = std::make_shared<std::vector<float>>(count);
      for (float& value : *values) value = normal(random);
      source.dense = reinterpret_cast<const std::byte*>(values->data());
      source.owner = values;
      return source;
    }
    source.group = 32;
    source.codes.resize(count);
    const bool nibbles = source.format == ops::WeightFormat::kInt4;
    for (std::uint8_t& code : source.codes) code = static_cast<std::uint8_t>(random() % (nibbles ? 16 : 256));
    const std::size_t groups = count / 32;
    const float scale = deviation / (nibbles ? 4.6F : 74.0F);  // of evenly spread codes
    for (std::size_t i = 0; i < groups; ++i) {
      source.scales.push_back(scale * (0.8F + 0.4F * static_cast<float>(random() % 1000) / 1000.0F));
      source.offsets.push_back(nibbles ? -7.5F * source.scales.back() : 0.0F);
    }
    return source;
  }

  Result<std::vector<float>> vector(std::string_view name, std::int64_t size) const override {
    std::mt19937_64 random(std::hash<std::string_view>{}(name));
    std::uniform_real_distribution<float> gain(0.5F, 1.5F);
    std::vector<float> values(static_cast<std::size_t>(size));
    for (float& value : values) value = gain(random);
    if (name == shape_.poisoned_tensor) values.front() = std::numeric_limits<float>::quiet_NaN();
    return values;
  }

  Result<std::shared_ptr<const Tokenizer>> tokenizer() const override {
    return unsupported("a random model has no tokenizer");
  }
  std::optional<std::string> chat_template() const override { return std::nullopt; }
  SpecialTokens special_tokens() const override { return {}; }

 private:
  RandomModel shape_;
  std::string path_ = "random";
  nlohmann::ordered_json config_;
  nlohmann::ordered_json generation_config_ = nlohmann::ordered_json::object();
};

}  // namespace

std::shared_ptr<const model::Checkpoint> make_random_checkpoint(const RandomModel& shape) {
  return std::make_shared<RandomCheckpoint>(shape);
}

}  // namespace lanner
