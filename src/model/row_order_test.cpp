#include "model/row_order.h"

#include <gtest/gtest.h>

#include <cstring>

#include "model/dense_weight.h"
#include "model/tensor_view.h"

namespace lanner::model {
namespace {

using Rows = std::vector<std::int64_t>;

ProjectionSpec projection(std::int64_t rows) {
  ProjectionSpec spec;
  spec.rows = rows;
  spec.cols = 3;
  return spec;
}

ProjectionSpec pairwise(std::int64_t rows, std::int64_t heads, std::int64_t rotary_dim) {
  ProjectionSpec spec = projection(rows);
  spec.row_order = RowOrder::kPairwiseRope;
  spec.heads = heads;
  spec.rotary_dim = rotary_dim;
  return spec;
}

TEST(RowOrder, PlainRowsStayWhereTheyAre) { EXPECT_EQ(rows_in_tensor(projection(4)), (Rows{0, 1, 2, 3})); }

// llama.cpp's converter turns rows 0 1 2 3 of a head (halves 0 1 and 2 3) into 0 2 1 3.
TEST(RowOrder, PairsBecomeHalves) {
  EXPECT_EQ(rows_in_tensor(pairwise(8, 2, 4)), (Rows{0, 2, 1, 3, 4, 6, 5, 7}));
  EXPECT_EQ(rows_in_tensor(pairwise(6, 1, 6)), (Rows{0, 2, 4, 1, 3, 5}));
}

TEST(RowOrder, RowsThatDoNotRotateStay) {
  EXPECT_EQ(rows_in_tensor(pairwise(12, 2, 4)), (Rows{0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11}));
}

// Groups of two query heads, a key head and a value head, each of two rows: InternLM 2 with two key-value heads.
TEST(RowOrder, SlicesOfSeveralBlocks) {
  ProjectionSpec q = projection(8);
  q.slice = RowSlice{.tensor_rows = 16, .first = 0, .block_rows = 4, .stride = 8};
  EXPECT_EQ(rows_in_tensor(q), (Rows{0, 1, 2, 3, 8, 9, 10, 11}));
  ProjectionSpec v = projection(4);
  v.slice = RowSlice{.tensor_rows = 16, .first = 6, .block_rows = 2, .stride = 8};
  EXPECT_EQ(rows_in_tensor(v), (Rows{6, 7, 14, 15}));
  EXPECT_EQ(tensor_rows(v), 16);
}

// ChatGLM: pairs inside a slice. The pairs are those of the projection's heads, then the slice says where they lie.
TEST(RowOrder, PairsInASlice) {
  ProjectionSpec k = pairwise(8, 2, 4);
  k.slice = RowSlice{.tensor_rows = 24, .first = 4, .block_rows = 4, .stride = 12};
  EXPECT_EQ(rows_in_tensor(k), (Rows{4, 6, 5, 7, 16, 18, 17, 19}));
}

TEST(RowOrder, DenseMatricesOfEveryWidth) {
  const Rows rows{5, 2, 3};
  for (const auto format : {ops::WeightFormat::kF32, ops::WeightFormat::kF16, ops::WeightFormat::kBF16}) {
    const std::size_t row_bytes = 3 * (format == ops::WeightFormat::kF32 ? 4 : 2);
    std::vector<std::byte> bytes;
    for (std::size_t row = 0; row < 6; ++row) bytes.insert(bytes.end(), row_bytes, static_cast<std::byte>(row));
    const auto source = gather_rows(dense_matrix(format, bytes.data(), 6, 3, nullptr), rows);
    EXPECT_EQ(source.rows, 3);
    ASSERT_NE(source.owner, nullptr);
    for (std::size_t i = 0; i < 3 * row_bytes; ++i) {
      ASSERT_EQ(source.dense[i], static_cast<std::byte>(rows[i / row_bytes]));
    }
  }
}

TEST(RowOrder, NeighboursOfADenseMatrixAreNotCopied) {
  const std::vector<std::byte> bytes(6 * 12);
  const auto source = gather_rows(dense_matrix(ops::WeightFormat::kF32, bytes.data(), 6, 3, nullptr), Rows{2, 3, 4});
  EXPECT_EQ(source.dense, bytes.data() + 2 * 12);
  EXPECT_EQ(source.rows, 3);
}

/// Six rows whose codes, scales and offsets tell the row.
ops::WeightSource quantized(ops::WeightFormat format) {
  ops::WeightSource source;
  source.format = format;
  source.rows = 6;
  source.cols = 64;
  source.group = 32;
  for (std::uint8_t row = 0; row < 6; ++row) {
    const auto number = static_cast<float>(row);
    source.codes.insert(source.codes.end(), 64, row);
    source.scales.insert(source.scales.end(), {number, number + 0.5F});
    source.offsets.insert(source.offsets.end(), {-number, -number - 0.5F});
  }
  return source;
}

TEST(RowOrder, QuantizedMatrices) {
  for (const auto format : {ops::WeightFormat::kInt4, ops::WeightFormat::kInt8}) {
    const Rows rows{4, 5, 1};
    const auto source = gather_rows(quantized(format), rows);
    EXPECT_EQ(source.format, format);
    EXPECT_EQ(source.rows, 3);
    EXPECT_EQ(source.codes.size(), 3U * 64);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto number = static_cast<float>(rows[i]);
      EXPECT_EQ(source.codes[64 * i], rows[i]);
      EXPECT_EQ(source.codes[64 * i + 63], rows[i]);
      EXPECT_EQ(source.scales[2 * i + 1], number + 0.5F);
      EXPECT_EQ(source.offsets[2 * i], -number);
    }
  }
}

TEST(RowOrder, Biases) {
  EXPECT_EQ(gather_rows(std::vector<float>{0, 10, 20, 30}, Rows{3, 0}), (std::vector<float>{30, 0}));
}

std::vector<float> values_of(const ops::WeightSource& source) {
  std::vector<float> values(static_cast<std::size_t>(source.rows * source.cols));
  std::memcpy(values.data(), source.dense, values.size() * sizeof(float));
  return values;
}

TEST(DenseWeight, WidensInTheNaturalOrder) {
  ops::WeightSource source;
  source.format = ops::WeightFormat::kInt4;
  source.rows = 1;
  source.cols = 4;
  source.group = 2;
  source.codes = {1, 2, 3, 4};
  source.scales = {1, 10};
  source.offsets = {0.5F, 0};
  source.input_order = {2, 0, 3, 1};
  const auto wide = widened(source);
  EXPECT_TRUE(wide.input_order.empty());
  EXPECT_EQ(values_of(wide), (std::vector<float>{2.5F, 40, 1.5F, 30}));
}

TEST(DenseWeight, UnitRows) {
  const std::vector<float> values{3, 4, 0, 0, -5, 12};
  const auto dense = with_unit_rows(
      dense_matrix(ops::WeightFormat::kF32, reinterpret_cast<const std::byte*>(values.data()), 3, 2, nullptr));
  const auto unit = values_of(dense);
  const std::vector<float> expected{0.6F, 0.8F, 0, 0, -5.0F / 13, 12.0F / 13};
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(unit[i], expected[i], 1e-6F);

  const std::vector<std::uint16_t> halves{0x4200, 0x4400};  // 3, 4
  const auto half = with_unit_rows(
      dense_matrix(ops::WeightFormat::kF16, reinterpret_cast<const std::byte*>(halves.data()), 1, 2, nullptr));
  ASSERT_EQ(half.format, ops::WeightFormat::kF16);
  EXPECT_NEAR(values_of(widened(half))[1], 0.8F, 5e-4F);

  ops::WeightSource codes;
  codes.format = ops::WeightFormat::kInt8;
  codes.rows = 1;
  codes.cols = 2;
  codes.group = 2;
  codes.codes = {static_cast<std::uint8_t>(-3), 4};
  codes.scales = {2};
  codes.offsets = {0};
  const auto quantized_unit = with_unit_rows(codes);
  EXPECT_EQ(quantized_unit.codes, codes.codes);
  EXPECT_NEAR(values_of(widened(quantized_unit))[0], -0.6F, 1e-6F);
}

}  // namespace
}  // namespace lanner::model
