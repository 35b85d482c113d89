// Products in strips against a plain loop.

#include "ops/cpu/strip_products.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

/// Element (row, column) of a strip, by its description.
float element(const std::vector<float>& strip, std::int64_t rows, std::int64_t row, std::int64_t column) {
  return strip[static_cast<std::size_t>(column < 16 ? row * 16 + column : (rows + row) * 16 + column - 16)];
}

TEST(StripProducts, AreThoseOfAPlainLoop) {
  Random random(11);
  for (const std::int64_t rows : {1, 5, 31, 32, 33, 77}) {
    for (const std::int64_t depth : {1, 7, 64}) {
      for (const StripTarget target : {StripTarget::kSet, StripTarget::kAdd, StripTarget::kSubtract}) {
        SCOPED_TRACE(::testing::Message() << rows << " rows, depth " << depth);
        const std::int64_t right_rows = depth + 9;
        const std::int64_t to_rows = rows + 4;
        const std::vector<float> left = random.vector(rows * depth);
        const std::vector<float> right = random.vector(right_rows * kStripColumns);
        const std::vector<float> before = random.vector(to_rows * kStripColumns);
        std::vector<float> to = before;
        multiply_strip({.left = left.data(),
                        .rows = rows,
                        .depth = depth,
                        .right = {.data = right.data(), .rows = right_rows},
                        .right_row = 6,
                        .to = {.data = to.data(), .rows = to_rows},
                        .to_row = 3,
                        .target = target});
        for (std::int64_t r = 0; r < to_rows; ++r) {
          for (std::int64_t c = 0; c < kStripColumns; ++c) {
            const auto old = static_cast<double>(element(before, to_rows, r, c));
            double expected = old;
            double size = std::fabs(old);
            if (r >= 3 && r < 3 + rows) {
              double sum = 0;
              for (std::int64_t k = 0; k < depth; ++k) {
                const double term = static_cast<double>(left[static_cast<std::size_t>((r - 3) * depth + k)]) *
                                    static_cast<double>(element(right, right_rows, 6 + k, c));
                sum += term;
                size += std::fabs(term);
              }
              expected = target == StripTarget::kSet ? sum : target == StripTarget::kAdd ? old + sum : old - sum;
            }
            // A rounding of fp32 for each product and sum, each of a part of what is summed.
            ASSERT_NEAR(static_cast<double>(element(to, to_rows, r, c)), expected,
                        size * static_cast<double>(2 * depth + 2) * 0x1p-24)
                << "row " << r << ", column " << c;
          }
        }
      }
    }
  }
}

TEST(StripProducts, StripsKnowTheirElements) {
  std::vector<float> numbers(5 * kStripColumns);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i);
  const Strip strip{.data = numbers.data(), .rows = 5};
  for (std::int64_t r = 0; r < 5; ++r) {
    for (std::int64_t c = 0; c < kStripColumns; ++c) EXPECT_EQ(strip.at(r, c), element(numbers, 5, r, c));
  }
}

}  // namespace
}  // namespace lanner::ops::testing
