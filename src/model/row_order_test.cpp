#include "model/row_order.h"

#include <gtest/gtest.h>

#include <cstring>

#include "model/tensor_view.h"

namespace lanner::model {
namespace {

// Two heads of four rows. llama.cpp's converter turns rows 0 1 2 3 of a head (halves 0 1 and 2 3) into 0 2 1 3.
const std::vector<float> kPairwise{0, 2, 1, 3, 4, 6, 5, 7};
const std::vector<float> kPlain{0, 1, 2, 3, 4, 5, 6, 7};

TEST(RowOrder, Biases) {
  EXPECT_EQ(undo_pairwise_rope(kPairwise, 2), kPlain);
  EXPECT_EQ(undo_pairwise_rope(std::vector<float>{0, 3, 1, 4, 2, 5}, 1), (std::vector<float>{0, 1, 2, 3, 4, 5}));
}

TEST(RowOrder, DenseMatricesOfEveryWidth) {
  for (const auto format : {ops::WeightFormat::kF32, ops::WeightFormat::kF16, ops::WeightFormat::kBF16}) {
    const std::size_t row_bytes = 3 * (format == ops::WeightFormat::kF32 ? 4 : 2);
    std::vector<std::byte> bytes;
    for (const float row : kPairwise) bytes.insert(bytes.end(), row_bytes, static_cast<std::byte>(row));
    const auto source = undo_pairwise_rope(dense_matrix(format, bytes.data(), 8, 3, nullptr), 2);
    ASSERT_NE(source.owner, nullptr);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      ASSERT_EQ(source.dense[i], static_cast<std::byte>(kPlain[i / row_bytes]));
    }
  }
}

TEST(RowOrder, QuantizedMatrices) {
  ops::WeightSource source;
  source.format = ops::WeightFormat::kInt4;
  source.rows = 8;
  source.cols = 64;
  source.group = 32;
  for (const float row : kPairwise) {
    source.codes.insert(source.codes.end(), 64, static_cast<std::uint8_t>(row));
    source.scales.insert(source.scales.end(), {row, row + 0.5F});
    source.offsets.insert(source.offsets.end(), {-row, -row - 0.5F});
  }
  source = undo_pairwise_rope(std::move(source), 2);
  for (std::size_t row = 0; row < 8; ++row) {
    EXPECT_EQ(source.codes[64 * row], row);
    EXPECT_EQ(source.codes[64 * row + 63], row);
    EXPECT_EQ(source.scales[2 * row + 1], kPlain[row] + 0.5F);
    EXPECT_EQ(source.offsets[2 * row], -kPlain[row]);
  }
}

}  // namespace
}  // namespace lanner::model
