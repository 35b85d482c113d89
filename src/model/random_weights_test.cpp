#include "model/random_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/float16.h"
#include "model/decoder_config.h"

namespace lanner::model {
namespace {

class Folder {
 public:
  explicit Folder(const Json& config) : path_(testing::TempDir() + "random_weights") {
    std::filesystem::create_directories(path_);
    std::ofstream(path_ + "/config.json") << config.dump();
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Json small_llama() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 200},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", 512},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", false}};
}

std::vector<double> values_of(const ops::WeightSource& source) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < source.rows * source.cols; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, source.dense + i * 2, sizeof(bits));
    values.push_back(static_cast<double>(source.format == ops::WeightFormat::kBF16 ? to_float(BFloat16{bits})
                                                                                   : to_float(Half{bits})));
  }
  return values;
}

TEST(RandomWeights, HaveTheShapeOfTheConfigurationAndTheUsualSpread) {
  const Folder folder(small_llama());
  const auto checkpoint = open_random_weights(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const auto spec = read_decoder_spec(**checkpoint);
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->layers.size(), 2U);

  const auto matrix = (*checkpoint)->matrix(spec->layers[0].down.weight, 64, 96);
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ(matrix->format, ops::WeightFormat::kF16);
  const std::vector<double> values = values_of(*matrix);
  double sum = 0;
  double squares = 0;
  for (const double value : values) {
    sum += value;
    squares += value * value;
  }
  const auto count = static_cast<double>(values.size());
  EXPECT_NEAR(sum / count, 0.0, 0.02 * 5 / std::sqrt(count));
  EXPECT_NEAR(std::sqrt(squares / count), 0.02, 0.001);

  const auto other = (*checkpoint)->matrix(spec->layers[1].down.weight, 64, 96);
  ASSERT_TRUE(other.ok());
  EXPECT_NE(values_of(*other), values);
  const auto larger = (*checkpoint)->matrix(spec->embedding, 2000, 64);  // after smaller ones, which stay as they are
  ASSERT_TRUE(larger.ok());
  EXPECT_EQ(values_of(*matrix), values);
  EXPECT_EQ(*(*checkpoint)->vector(spec->final_norm.weight, 3), std::vector<float>({1, 1, 1}));
}

TEST(RandomWeights, AreOfTheTypeThatTheConfigurationNames) {
  Json config = small_llama();
  config["torch_dtype"] = "bfloat16";
  const Folder folder(config);
  const auto checkpoint = open_random_weights(folder.path());
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_EQ((*checkpoint)->matrix("any", 4, 4)->format, ops::WeightFormat::kBF16);
}

TEST(RandomWeights, OfFourBitsAreTheLayersMatrices) {
  Json config = small_llama();
  config["quantization_config"] = {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}};
  const Folder folder(config);
  const auto checkpoint = open_random_weights(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ((*checkpoint)->matrix("lm_head.weight", 8, 64)->format, ops::WeightFormat::kF16);
  const auto source = (*checkpoint)->matrix("model.layers.1.mlp.up_proj.weight", 512, 64);
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(source->format, ops::WeightFormat::kInt4);
  EXPECT_EQ(source->group, 32);
  ASSERT_EQ(source->codes.size(), 512U * 64);
  ASSERT_EQ(source->scales.size(), 512U * 2);
  ASSERT_EQ(source->offsets.size(), 512U * 2);
  double squares = 0;
  for (std::size_t i = 0; i < source->codes.size(); ++i) {
    ASSERT_LT(source->codes[i], 16);
    const double value = source->scales[i / 32] * static_cast<float>(source->codes[i]) + source->offsets[i / 32];
    squares += value * value;
  }
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(source->codes.size())), 0.02, 0.003);
  EXPECT_EQ((*checkpoint)->matrix("model.layers.0.x.weight", 4, 33).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ((*checkpoint)->matrix("model.layers.1.mlp.up_proj.weight", 512, 64)->codes, source->codes);
}

TEST(RandomWeights, AreOfTheFormatThatIsAskedFor) {
  Json config = small_llama();
  config["quantization_config"] = {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 64}};
  const Folder folder(config);
  const std::string up = "model.layers.1.mlp.up_proj.weight";
  const auto dense = open_random_weights(folder.path(), ops::WeightFormat::kBF16);
  ASSERT_TRUE(dense.ok()) << dense.status().message();
  EXPECT_EQ((*dense)->matrix(up, 8, 64)->format, ops::WeightFormat::kBF16);
  EXPECT_EQ((*dense)->matrix("lm_head.weight", 8, 64)->format, ops::WeightFormat::kBF16);
  for (const ops::WeightFormat format : {ops::WeightFormat::kInt4, ops::WeightFormat::kInt8}) {
    const auto quantized = open_random_weights(folder.path(), format);
    ASSERT_TRUE(quantized.ok()) << quantized.status().message();
    EXPECT_EQ((*quantized)->matrix("lm_head.weight", 8, 64)->format, ops::WeightFormat::kF16);
    const auto source = (*quantized)->matrix(up, 512, 64);
    ASSERT_TRUE(source.ok());
    EXPECT_EQ(source->format, format);
    EXPECT_EQ(source->group, 32);
    EXPECT_EQ(source->offsets.empty(), format == ops::WeightFormat::kInt8);
    double squares = 0;
    for (std::size_t i = 0; i < source->codes.size(); ++i) {
      const int code = source->offsets.empty() ? static_cast<std::int8_t>(source->codes[i]) : source->codes[i] - 8;
      squares += std::pow(static_cast<double>(source->scales[i / 32]) * code, 2);
    }
    EXPECT_NEAR(std::sqrt(squares / static_cast<double>(source->codes.size())), 0.02, 0.003);
  }
}

TEST(RandomWeights, RefuseQuantizedConfigurationsAndMissingOnes) {
  Json config = small_llama();
  config["quantization_config"] = {{"quant_method", "awq"}};
  const Folder folder(config);
  EXPECT_EQ(open_random_weights(folder.path()).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(open_random_weights(folder.path() + "/none").status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace lanner::model
