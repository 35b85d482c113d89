// Hessians, their factor, and rounding by it, against plain loops in double: GPTQ as its paper writes it, with the
// inverse.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/float16.h"
#include "core/thread_pool.h"
#include "model/fake_checkpoint.h"
#include "quant/dense_rows.h"
#include "quant/gptq_matrix.h"
#include "quant/hessian.h"
#include "quant/smoothing.h"

namespace lanner::quant {
namespace {

using Square = std::vector<std::vector<double>>;

/// Numbers in [-1, 1), the same in each run.
class Numbers {
 public:
  float next() {
    state_ = state_ * 1664525U + 1013904223U;
    return static_cast<float>(state_ >> 8U) / 8388608.0F - 1.0F;
  }

 private:
  std::uint32_t state_ = 11;
};

/// Rows of inputs of which each is near the one before it, and some are large.
std::vector<float> correlated_inputs(std::size_t rows, std::size_t inputs) {
  Numbers numbers;
  std::vector<float> values;
  for (std::size_t r = 0; r < rows; ++r) {
    float last = 0;
    for (std::size_t i = 0; i < inputs; ++i) {
      last = 0.9F * last + numbers.next();
      values.push_back(i % 17 == 3 ? 6 * last : last);
    }
  }
  return values;
}

Square hessian_of(const std::vector<float>& values, std::size_t inputs) {
  Square sums(inputs, std::vector<double>(inputs));
  for (std::size_t begin = 0; begin < values.size(); begin += inputs) {
    for (std::size_t i = 0; i < inputs; ++i) {
      for (std::size_t j = 0; j < inputs; ++j) {
        sums[i][j] += static_cast<double>(values[begin + i]) * static_cast<double>(values[begin + j]);
      }
    }
  }
  return sums;
}

void damp(Square& hessian) {
  double sum = 0;
  for (std::size_t i = 0; i < hessian.size(); ++i) sum += hessian[i][i];
  for (std::size_t i = 0; i < hessian.size(); ++i) hessian[i][i] += 0.01 * sum / static_cast<double>(hessian.size());
}

/// By Gauss and Jordan; the matrix is positive definite.
Square inverse_of(Square matrix) {
  const std::size_t n = matrix.size();
  Square result(n, std::vector<double>(n));
  for (std::size_t i = 0; i < n; ++i) result[i][i] = 1;
  for (std::size_t i = 0; i < n; ++i) {
    const double pivot = matrix[i][i];
    for (std::size_t j = 0; j < n; ++j) {
      matrix[i][j] /= pivot;
      result[i][j] /= pivot;
    }
    for (std::size_t r = 0; r < n; ++r) {
      const double factor = matrix[r][i];
      if (r == i || factor == 0) continue;
      for (std::size_t j = 0; j < n; ++j) {
        matrix[r][j] -= factor * matrix[i][j];
        result[r][j] -= factor * result[i][j];
      }
    }
  }
  return result;
}

/// U with matrix = Uᵀ U.
Square upper_cholesky(const Square& matrix) {
  const std::size_t n = matrix.size();
  Square upper(n, std::vector<double>(n));
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = i; j < n; ++j) {
      double sum = matrix[i][j];
      for (std::size_t k = 0; k < i; ++k) sum -= upper[k][i] * upper[k][j];
      upper[i][j] = i == j ? std::sqrt(sum) : sum / upper[i][i];
    }
  }
  return upper;
}

/// (w - q) H (w - q)ᵀ, of all rows.
double error_of(const std::vector<float>& weights, const std::vector<double>& rounded, const Square& hessian) {
  const std::size_t n = hessian.size();
  double error = 0;
  for (std::size_t begin = 0; begin < weights.size(); begin += n) {
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        error += (static_cast<double>(weights[begin + i]) - rounded[begin + i]) * hessian[i][j] *
                 (static_cast<double>(weights[begin + j]) - rounded[begin + j]);
      }
    }
  }
  return error;
}

double step_of(const std::vector<double>& weights, std::size_t begin, std::size_t count) {
  double most = 0;
  for (std::size_t i = begin; i < begin + count; ++i) most = std::max(most, std::fabs(weights[i]));
  return static_cast<double>(to_float(to_half(static_cast<float>(2 * most / 15))));
}

/// The paper's loop. `upper`: of the inverse.
std::vector<double> paper(const std::vector<float>& weights, const Square& upper, std::size_t group) {
  const std::size_t n = upper.size();
  std::vector<double> rounded(weights.size());
  for (std::size_t begin = 0; begin < weights.size(); begin += n) {
    std::vector<double> row(weights.begin() + static_cast<std::ptrdiff_t>(begin),
                            weights.begin() + static_cast<std::ptrdiff_t>(begin + n));
    double step = 0;
    for (std::size_t j = 0; j < n; ++j) {
      if (j % group == 0) step = step_of(row, j, group);
      rounded[begin + j] = step * std::clamp(std::nearbyint(row[j] / step), -8.0, 7.0);
      const double error = (row[j] - rounded[begin + j]) / upper[j][j];
      for (std::size_t k = j; k < n; ++k) row[k] -= error * upper[j][k];
    }
  }
  return rounded;
}

struct Case {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t group = 0;
};

std::vector<float> random_weights(const Case& shape) {
  Numbers numbers;
  std::vector<float> weights(static_cast<std::size_t>(shape.rows * shape.cols));
  for (float& weight : weights) weight = 0.3F * numbers.next();
  return weights;
}

Result<DenseRows> rows_of(const std::vector<float>& weights, const Case& shape) {
  model::FakeCheckpoint checkpoint;
  checkpoint.shapes["m.weight"] = {shape.rows, shape.cols};
  checkpoint.values["m.weight"] = weights;
  return DenseRows::open(checkpoint, {.name = "m.weight", .rows = shape.rows, .cols = shape.cols});
}

/// What the words mean, by the format's description.
std::vector<double> unpacked(const PackedMatrix& matrix, const Case& shape) {
  std::vector<double> values;
  for (std::int64_t r = 0; r < shape.rows; ++r) {
    for (std::int64_t c = 0; c < shape.cols; ++c) {
      const std::int64_t group = c / shape.group;
      EXPECT_EQ(matrix.group_index[static_cast<std::size_t>(c)], group);
      const std::uint32_t word = matrix.codes[static_cast<std::size_t>(c / 8 * shape.rows + r)];
      const std::uint32_t zeros = matrix.zeros[static_cast<std::size_t>((group * shape.rows + r) / 8)];
      const auto code = static_cast<double>(word >> 4U * static_cast<std::uint32_t>(c % 8) & 15U);
      const auto zero = static_cast<double>((zeros >> 4U * static_cast<std::uint32_t>(r % 8) & 15U) + 1);
      const Half scale{matrix.scales[static_cast<std::size_t>(group * shape.rows + r)]};
      values.push_back(static_cast<double>(to_float(scale)) * (code - zero));
    }
  }
  return values;
}

Hessian hessian_with(const std::vector<float>& values, std::int64_t inputs, ThreadPool& pool) {
  auto hessian = Hessian::make(inputs);
  EXPECT_TRUE(hessian.ok());
  // Samples of different lengths.
  const auto first = static_cast<std::size_t>(7 * inputs);
  hessian->add(std::span(values).first(first), pool);
  hessian->add(std::span(values).subspan(first), pool);
  return std::move(*hessian);
}

TEST(Hessian, IsTheSumOfOuterProducts) {
  constexpr std::int64_t kInputs = 160;
  const std::vector<float> values = correlated_inputs(600, kInputs);  // more than are multiplied at once
  const Square wanted = hessian_of(values, kInputs);
  const auto pool = ThreadPool::create(3);
  const Hessian hessian = hessian_with(values, kInputs, **pool);
  EXPECT_TRUE(hessian.finite());
  for (std::int64_t i = 0; i < kInputs; ++i) {
    for (std::int64_t j = i; j < kInputs; ++j) {
      const auto a = static_cast<std::size_t>(i);
      const auto b = static_cast<std::size_t>(j);
      ASSERT_NEAR(static_cast<double>(hessian.triangle().at(i, j)), wanted[a][b],
                  2e-5 * std::sqrt(wanted[a][a] * wanted[b][b]))
          << i << ", " << j;
    }
  }
}

TEST(Hessian, ValuesThatAreNoNumbersAreSeen) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> values = correlated_inputs(20, 64);
    values[5 * 64 + 40] = bad;
    const auto pool = ThreadPool::create(2);
    EXPECT_FALSE(hessian_with(values, 64, **pool).finite());
  }
}

TEST(Hessian, ItsFactorMultipliesBackToIt) {
  for (const std::int64_t inputs : {32, 64, 96, 224}) {
    SCOPED_TRACE(inputs);
    const auto count = static_cast<std::size_t>(inputs);
    const std::vector<float> values = correlated_inputs(500, count);
    Square wanted = hessian_of(values, count);
    damp(wanted);
    const auto pool = ThreadPool::create(2);
    Hessian hessian = hessian_with(values, inputs, **pool);
    hessian.factor(0.01, **pool);
    for (std::int64_t i = 0; i < inputs; ++i) {
      EXPECT_GT(hessian.triangle().at(i, i), 0);
      for (std::int64_t j = i; j < inputs; ++j) {
        double sum = 0;
        for (std::int64_t k = j; k < inputs; ++k) {
          sum += static_cast<double>(hessian.triangle().at(i, k)) * static_cast<double>(hessian.triangle().at(j, k));
        }
        const auto a = static_cast<std::size_t>(i);
        const auto b = static_cast<std::size_t>(j);
        ASSERT_NEAR(sum, wanted[a][b], 5e-5 * std::sqrt(wanted[a][a] * wanted[b][b])) << i << ", " << j;
      }
    }
  }
}

TEST(Hessian, DoesNotDependOnTheNumberOfThreads) {
  const std::vector<float> values = correlated_inputs(300, 160);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 5}) {
    const auto pool = ThreadPool::create(threads);
    Hessian hessian = hessian_with(values, 160, **pool);
    hessian.factor(0.01, **pool);
    results.emplace_back();
    for (std::int64_t i = 0; i < 160; ++i) {
      for (std::int64_t j = i; j < 160; ++j) results.back().push_back(hessian.triangle().at(i, j));
    }
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(Hessian, InputsThatAreAllTheSameHaveAFactor) {
  // Of rank one: all pivots but one are what was added to the diagonal.
  std::vector<float> values(100 * 256);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i / 256 % 7) * 100.0F;
  const auto pool = ThreadPool::create(2);
  Hessian hessian = hessian_with(values, 256, **pool);
  const float added = 0.01F * hessian.triangle().at(0, 0);
  hessian.factor(0.01, **pool);
  for (std::int64_t i = 0; i < 256; ++i) {
    EXPECT_GE(hessian.triangle().at(i, i), 0.999F * std::sqrt(added));
    for (std::int64_t j = i; j < 256; ++j) ASSERT_TRUE(std::isfinite(hessian.triangle().at(i, j)));
  }
}

TEST(GptqMatrix, WithoutInputsIsPlainRounding) {
  const Case shape{.rows = 40, .cols = 128, .group = 32};
  const std::vector<float> weights = random_weights(shape);
  const auto rows = rows_of(weights, shape);
  const auto pool = ThreadPool::create(2);
  auto hessian = Hessian::make(shape.cols);
  hessian->factor(0.01, **pool);  // the identity
  const auto plain = round_gptq(*rows, nullptr, shape.group, **pool);
  const auto by_identity = round_gptq(*rows, &hessian->triangle(), shape.group, **pool);
  ASSERT_TRUE(plain.ok() && by_identity.ok());
  EXPECT_EQ(plain->codes, by_identity->codes);
  EXPECT_EQ(plain->scales, by_identity->scales);
  EXPECT_EQ(plain->zeros, std::vector<std::uint32_t>(4 * 5, 0x77777777U));
  const std::vector<double> values = unpacked(*plain, shape);
  for (std::size_t begin = 0; begin < weights.size(); begin += 32) {
    const std::vector<double> wide(weights.begin(), weights.end());
    const double step = step_of(wide, begin, 32);
    for (std::size_t i = begin; i < begin + 32; ++i) {
      EXPECT_NEAR(values[i], step * std::clamp(std::nearbyint(wide[i] / step), -8.0, 7.0), step * 1e-6);
    }
  }
}

class GptqOfShape : public testing::TestWithParam<Case> {};

TEST_P(GptqOfShape, IsThePaperOne) {
  const Case shape = GetParam();
  const auto inputs = static_cast<std::size_t>(shape.cols);
  const std::vector<float> weights = random_weights(shape);
  const std::vector<float> values = correlated_inputs(500, inputs);
  Square damped = hessian_of(values, inputs);
  const Square exact = damped;
  damp(damped);
  const std::vector<double> wanted =
      paper(weights, upper_cholesky(inverse_of(damped)), static_cast<std::size_t>(shape.group));
  const auto rows = rows_of(weights, shape);
  const auto pool = ThreadPool::create(2);
  Hessian hessian = hessian_with(values, shape.cols, **pool);
  hessian.factor(0.01, **pool);
  const auto matrix = round_gptq(*rows, &hessian.triangle(), shape.group, **pool);
  ASSERT_TRUE(matrix.ok());
  const std::vector<double> ours = unpacked(*matrix, shape);
  std::size_t same = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) same += std::fabs(ours[i] - wanted[i]) < 1e-9 ? 1U : 0U;
  // In fp32 a code at a border may differ, and what comes after it in its row.
  EXPECT_GT(static_cast<double>(same), 0.97 * static_cast<double>(ours.size()));
  const double error = error_of(weights, ours, exact);
  EXPECT_NEAR(error / error_of(weights, wanted, exact), 1, 0.01);
  const auto plain = round_gptq(*rows, nullptr, shape.group, **pool);
  EXPECT_LT(error, 0.5 * error_of(weights, unpacked(*plain, shape), exact));
  // However many threads there are.
  const auto alone = ThreadPool::create(1);
  const auto again = round_gptq(*rows, &hessian.triangle(), shape.group, **alone);
  EXPECT_EQ(again->codes, matrix->codes);
  EXPECT_EQ(again->scales, matrix->scales);
}

INSTANTIATE_TEST_SUITE_P(Shapes, GptqOfShape,
                         testing::Values(Case{.rows = 8, .cols = 32, .group = 32},
                                         Case{.rows = 40, .cols = 96, .group = 32},
                                         Case{.rows = 72, .cols = 192, .group = 64},
                                         Case{.rows = 16, .cols = 256, .group = 128}));

TEST(GptqMatrix, WeightsThatFp16HasNoScaleForAreRefused) {
  const Case shape{.rows = 8, .cols = 32, .group = 32};
  std::vector<float> weights = random_weights(shape);
  weights[77] = 2e6F;
  const auto pool = ThreadPool::create(2);
  const auto large = rows_of(weights, shape);
  EXPECT_EQ(round_gptq(*large, nullptr, 32, **pool).status().code(), StatusCode::kCorrupt);
  weights[77] = NAN;
  const auto bad = rows_of(weights, shape);
  EXPECT_EQ(round_gptq(*bad, nullptr, 32, **pool).status().code(), StatusCode::kCorrupt);
}

}  // namespace
}  // namespace lanner::quant
