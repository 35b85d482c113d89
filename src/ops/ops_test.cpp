// The operations before and beside the layers: embed, rope_angles, norm_rows, sample.
//
// One body of tests for every device. The CPU's kernels are compiled three times, and the program tests those that
// LANNER_CPU_ISA selects (tests/isa_main.cpp).

#include <cmath>
#include <numeric>

#include "core/cpu_info.h"
#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

TEST(Embed, GivesTheRowsOfTheTableTimesTheScale) {
  Random random(1);
  std::vector<WeightKind> kinds = some_of_each_kind();
  const std::vector<Step::Sequence> sequences = {{0, 3}, {70, 1}, {5, 13}};
  for (const WeightKind& kind : kinds) {
    SCOPED_TRACE(kind.name());
    const std::int64_t cols = is_quantized(kind.format) ? 192 : 33;
    const WeightSource source = random_weight(kind, 50, cols, random);
    const Step step(sequences, 8, random);
    std::vector<float> expected(static_cast<std::size_t>(step.batch().rows * cols));
    std::vector<float> actual = expected;
    for (const float scale : {1.0F, 45.254834F}) {
      reference().embed(*packed(reference(), source, kind.arithmetic), step.batch(), scale, expected.data());
      device(2).embed(*packed(device(2), source, kind.arithmetic), step.batch(), scale, actual.data());
      expect_same_bits(actual, expected);  // widening and scaling a weight is one formula, without a sum
    }
  }
}

TEST(RopeAngles, AreCosinesAndSinesOfPositionTimesFrequency) {
  Random random(2);
  for (const std::int64_t half : {1, 3, 8, 24, 40}) {
    for (const float scale : {1.0F, 1.3F}) {
      const std::vector<float> frequencies = random.vector(half, 0.001F, 1.0F);
      const Step step({{0, 2}, {1029, 1}, {63, 5}}, 32, random);
      std::vector<float> expected(static_cast<std::size_t>(step.batch().rows * 2 * half));
      std::vector<float> actual = expected;
      reference().rope_angles({uploaded(reference(), frequencies), scale}, step.batch(), expected.data());
      device(2).rope_angles({uploaded(device(2), frequencies), scale}, step.batch(), actual.data());
      // The angle is one fp32 product on every device; a cosine may be a unit in the last place off, then the scale.
      expect_within(actual, expected, std::vector<double>(expected.size(), 4 * kUnit * static_cast<double>(scale)));
    }
  }
}

/// A device's norm of three of five rows of `cols` numbers, which lie in mean +- size.
void check_norm_rows(const HostNorm& norm, float mean, float size, std::int64_t cols, Random& random) {
  SCOPED_TRACE(::testing::Message() << (norm.kind == NormKind::kRms ? "RMS, " : "layer, ") << cols << " columns, "
                                    << mean << " +- " << size << (norm.bias.empty() ? "" : ", bias"));
  const std::vector<float> x = random.vector(5 * cols, mean - size, mean + size);
  const std::vector<std::int32_t> wanted = {4, 0, 3};
  std::vector<float> expected;
  std::vector<double> bound;
  for (const std::int32_t row : wanted) {
    std::vector<float> values(x.begin() + row * cols, x.begin() + (row + 1) * cols);
    std::vector<double> value_bound(values.size());
    take_through_norm(norm, values, value_bound);
    expected.insert(expected.end(), values.begin(), values.end());
    bound.insert(bound.end(), value_bound.begin(), value_bound.end());
  }
  std::vector<float> actual(expected.size());
  device(2).norm_rows(norm.on(device(2)), x.data(), cols, wanted, actual.data());
  expect_within(actual, expected, bound);
}

TEST(NormRows, IsNearTheReference) {
  Random random(3);
  for (const std::int64_t cols : {1, 7, 16, 33, 576, 1536}) {
    for (const float size : {1.0F, 0.003F, 300.0F}) {  // with 0.003, eps is as large as the mean square
      HostNorm norm;
      norm.gain = random.vector(cols, -1.5F, 1.5F);
      check_norm_rows(norm, 0, size, cols, random);
    }
  }
}

TEST(NormRows, OfALayerNormIsNearTheReferenceWhereverTheMeanLies) {
  Random random(6);
  for (const std::int64_t cols : {1, 7, 16, 33, 576, 1536}) {
    for (const float size : {1.0F, 0.003F, 300.0F}) {
      for (const float mean : {0.0F, -3.0F, 200.0F}) {  // a variance of squares would lose 200's digits
        if (cols == 1 && mean != 0) continue;           // a deviation of 0 beside the rounding of the mean has no bound
        for (const bool bias : {false, true}) {
          HostNorm norm = random_norm(NormKind::kLayer, bias, cols, random);
          norm.gain = random.vector(cols, -1.5F, 1.5F);
          check_norm_rows(norm, mean * size, size, cols, random);
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(Sample, SpreadsRowsOverThreadsAndKeepsTheirOrder) {
  Random random(4);
  constexpr std::int64_t kVocabulary = 101;
  for (int threads = 1; threads <= kMaxThreads; ++threads) {
    for (const std::size_t rows : {1U, 2U, 5U, 17U}) {
      const std::vector<float> logits = random.vector(static_cast<std::int64_t>(rows) * kVocabulary, -4.0F, 4.0F);
      std::vector<SamplingParams> params(rows);
      std::vector<SampleRow> sample_rows(rows);
      for (std::size_t i = 0; i < rows; ++i) {
        params[i].temperature = i % 2 == 0 ? 1.0F : 0.0F;
        params[i].seed = i;
        sample_rows[i].logits = std::span(logits).subspan(i * kVocabulary, kVocabulary);
        sample_rows[i].params = &params[i];
      }
      std::vector<SampledToken> expected(rows);
      std::vector<SampledToken> actual(rows);
      reference().sample(sample_rows, expected);
      device(threads).sample(sample_rows, actual);
      for (std::size_t i = 0; i < rows; ++i) EXPECT_EQ(actual[i].token, expected[i].token) << "row " << i;
    }
  }
}

TEST(Device, RefusesQuantizedShapesThatItsKernelsCannotTake) {
  Random random(5);
  const auto code = [&](WeightFormat format, std::int64_t cols, std::int64_t group) {
    const WeightKind kind{.format = format, .group = group, .offsets = true};
    return device(1).pack(random_weight(kind, 3, cols, random), Arithmetic::kFast).status().code();
  };
  EXPECT_EQ(code(WeightFormat::kInt4, 48, 16), StatusCode::kUnsupported);
  EXPECT_EQ(code(WeightFormat::kInt4, 64, 16), StatusCode::kUnsupported);
  EXPECT_EQ(code(WeightFormat::kInt8, 40, 8), StatusCode::kUnsupported);
  EXPECT_EQ(code(WeightFormat::kInt8, 64, 8), StatusCode::kUnsupported);
  EXPECT_EQ(code(WeightFormat::kInt8, 96, 48), StatusCode::kOk);
}

TEST(Device, SaysWhatItIs) {
  const std::string isa(cpu_isa_name(selected_cpu_isa()));
  EXPECT_EQ(device(1).description(), "cpu " + isa + ", 1 thread");
  EXPECT_EQ(device(3).description(), "cpu " + isa + ", 3 threads");
  EXPECT_GT(device(1).available_bytes(), 0);
}

TEST(Device, AllocatesZeroedMemoryAndNamesThePurposeWhenItCannot) {
  const auto memory = device(1).allocate(4099, "a test");
  ASSERT_TRUE(memory.ok());
  for (int i = 0; i < 4099; ++i) ASSERT_EQ((*memory)[i], std::byte{0});
  const auto too_much = device(1).allocate(std::int64_t{1} << 60, "a test");
  EXPECT_EQ(too_much.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(too_much.status().message().find("a test"), std::string::npos);
}

}  // namespace
}  // namespace lanner::ops::testing
