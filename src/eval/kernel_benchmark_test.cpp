#include "eval/kernel_benchmark.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "model/random_weights.h"

namespace lanner::eval {
namespace {

/// A Llama of two layers, without weights.
class TinyShape {
 public:
  TinyShape() : folder_(std::filesystem::path(::testing::TempDir()) / "lanner_kernel_benchmark") {
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / "config.json") << R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 64,
      "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
      "vocab_size": 100, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16",
      "tie_word_embeddings": false, "hidden_act": "silu", "rope_theta": 10000.0})";
  }
  ~TinyShape() { std::filesystem::remove_all(folder_); }
  TinyShape(const TinyShape&) = delete;
  TinyShape& operator=(const TinyShape&) = delete;
  std::string path() const { return folder_.string(); }

 private:
  std::filesystem::path folder_;
};

TEST(KernelBenchmark, MeasuresEveryShapeOfAModelOnEveryBody) {
  const TinyShape shape;
  const auto checkpoint = model::open_random_weights(shape.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  std::int64_t announced = 0;
  std::int64_t last = 0;
  KernelBenchmarkOptions options{.rows = {1, 3}, .isas = {CpuIsa::kGeneric, selected_cpu_isa()}, .threads = 2};
  options.seconds = 0.001;
  options.progress = [&](std::int64_t done, std::int64_t total) {
    EXPECT_EQ(done, ++last);
    announced = total;
  };
  const auto figures = measure_kernels(**checkpoint, options);
  ASSERT_TRUE(figures.ok()) << figures.status().message();
  ASSERT_EQ(figures->shapes.size(), 5U);
  const KernelShape& qkv = figures->shapes[0];
  EXPECT_EQ(qkv.name, "qkv");
  EXPECT_EQ(qkv.rows, (std::vector<std::int64_t>{64, 32, 32}));
  EXPECT_EQ(qkv.cols, 64);
  EXPECT_EQ(qkv.formats, "bfloat16");
  EXPECT_EQ(qkv.layers, 2);
  EXPECT_EQ(qkv.bytes, std::int64_t{128} * 64 * 2);
  EXPECT_EQ(qkv.float32_ops_per_row, 2.0 * 128 * 64);
  EXPECT_EQ(qkv.int8_ops_per_row, 0);
  EXPECT_STREQ(qkv.products(), "fp32");
  EXPECT_EQ(figures->shapes[4].name, "head");
  EXPECT_EQ(figures->shapes[4].layers, 1);
  ASSERT_EQ(figures->bodies.size(), 2U);
  EXPECT_EQ(announced, 20);
  EXPECT_EQ(last, 20);
  for (const KernelFigures::Body& body : figures->bodies) {
    ASSERT_EQ(body.figures.size(), 10U);
    for (const KernelFigure& figure : body.figures) {
      EXPECT_GT(figure.seconds.min, 0);
      EXPECT_LE(figure.seconds.min, figure.seconds.median);
      const KernelShape& of = figures->shapes[figure.shape];
      const double reading = static_cast<double>(of.bytes) / body.limits.read_bytes_per_s;
      const double multiplying = of.float32_ops_per_row * figure.rows / body.limits.float32_ops_per_s;
      EXPECT_DOUBLE_EQ(figure.limit_seconds, std::max(reading, multiplying));
      EXPECT_EQ(figure.read_bound, reading >= multiplying);
    }
  }
}

TEST(KernelBenchmark, RefusesWhatMakesNoSense) {
  const TinyShape shape;
  const auto checkpoint = model::open_random_weights(shape.path());
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_EQ(measure_kernels(**checkpoint, {.rows = {}}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(measure_kernels(**checkpoint, {.rows = {0}}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(measure_kernels(**checkpoint, {.rows = {1 << 20}}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(measure_kernels(**checkpoint, {.isas = {}}).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lanner::eval
