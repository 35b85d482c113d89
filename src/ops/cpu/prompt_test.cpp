// Products of bf16 against a plain loop: this processor's, and those of AMX with tiles in plain C++. What is around
// them is held against the reference by attention_test.cpp.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/float16.h"
#include "ops/cpu/prompt.h"
#include "ops/cpu/prompt_in_memory.h"
#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

using Multiply = void (*)(const cpu::BFloat16Product&);

std::vector<std::uint16_t> random_bits(std::int64_t size, Random& random) {
  std::vector<std::uint16_t> bits;
  for (const float value : random.vector(size)) bits.push_back(to_bfloat16(value).bits);
  return bits;
}

double number(const std::vector<std::uint16_t>& bits, std::int64_t index) {
  return static_cast<double>(to_float(BFloat16{bits[static_cast<std::size_t>(index)]}));
}

void check_product(Multiply multiply, std::int64_t rows, std::int64_t columns, std::int64_t depth, bool add,
                   Random& random) {
  SCOPED_TRACE(::testing::Message() << rows << " rows, " << columns << " columns, depth " << depth << ", add " << add);
  const std::int64_t a_stride = depth + 32;
  const std::int64_t b_stride = depth * 16 + 64;
  const std::int64_t c_stride = columns + 16;
  const std::vector<std::uint16_t> a = random_bits(rows * a_stride, random);
  const std::vector<std::uint16_t> b = random_bits(columns / 16 * b_stride, random);
  const std::vector<float> before = random.vector(rows * c_stride);
  std::vector<float> c = before;
  multiply({.a = a.data(),
            .a_stride = a_stride,
            .b = b.data(),
            .b_stride = b_stride,
            .c = c.data(),
            .c_stride = c_stride,
            .rows = rows,
            .columns = columns,
            .depth = depth,
            .add = add});
  std::vector<float> expected = before;
  std::vector<double> bound(c.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t column = 0; column < columns; ++column) {
      const auto at = static_cast<std::size_t>(row * c_stride + column);
      double sum = add ? static_cast<double>(before[at]) : 0.0;
      double size = std::fabs(sum);
      for (std::int64_t k = 0; k < depth; ++k) {
        const std::int64_t place = column / 16 * b_stride + (k / 2 * 16 + column % 16) * 2 + k % 2;
        const double term = number(a, row * a_stride + k) * number(b, place);
        sum += term;
        size += std::fabs(term);
      }
      expected[at] = static_cast<float>(sum);
      bound[at] = static_cast<double>(depth + 1) * kUnit * size;
    }
  }
  expect_within(c, expected, bound);
}

void check_products(const cpu::PromptKernels& kernels) {
  Random random(60);
  kernels.configure();
  for (const std::int64_t rows : {16, 32}) {
    for (const std::int64_t columns : {16, 32, 48, 64, 112, 256}) {
      for (const std::int64_t depth : {32, 96, 256}) {
        for (const bool add : {false, true}) {
          check_product(kernels.multiply, rows, columns, depth, add, random);
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(PromptProducts, OfThisProcessorAreThoseOfAPlainLoop) {
  const cpu::PromptKernels* kernels = cpu::prompt_kernels_for(selected_cpu_isa());
  if (kernels == nullptr) GTEST_SKIP() << "there are none with this instruction set";
  check_products(*kernels);
}

TEST(PromptProducts, WithTilesAreThoseOfAPlainLoop) {
  if (detected_cpu_isa() < CpuIsa::kAvx512 || !has_bfloat16_products())
    GTEST_SKIP() << "this processor lacks AVX512-BF16";
  check_products(cpu::prompt_in_memory::prompt_kernels());
}

}  // namespace
}  // namespace lanner::ops::testing
