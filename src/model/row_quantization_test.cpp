#include "model/row_quantization.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "model/file_builders.h"

namespace lanner::model {
namespace {

/// A matrix of 2 rows and `cols` columns; its bytes live as long as this.
struct Matrix {
  explicit Matrix(std::int64_t cols) : codes(static_cast<std::size_t>(2 * cols)), scales{0.5F, 0.25F} {
    for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::int8_t>(static_cast<int>(i % 255) - 127);
    add("m.weight", "I8", {2, cols}, std::as_bytes(std::span(codes)));
    add("m.scale", "F32", {2, 1}, std::as_bytes(std::span(scales)));
  }
  void add(const std::string& name, const std::string& dtype, std::vector<std::int64_t> shape,
           std::span<const std::byte> bytes) {
    tensors[name] = {.name = name, .dtype = dtype, .shape = std::move(shape), .bytes = bytes, .owner = nullptr};
  }
  Status find(std::int64_t rows, std::int64_t cols) const {
    return find_row_quantized(tensors, "m.weight", rows, cols, "x").status();
  }

  std::vector<std::int8_t> codes;
  std::array<float, 2> scales;
  TensorMap tensors;
};

TEST(RowQuantization, ARowsScaleIsThatOfItsGroups) {
  const Matrix matrix(192);
  EXPECT_TRUE(is_row_quantized(matrix.tensors, "m.weight"));
  EXPECT_FALSE(is_row_quantized(matrix.tensors, "m.scale"));
  EXPECT_FALSE(is_row_quantized(matrix.tensors, "n.weight"));
  const auto found = find_row_quantized(matrix.tensors, "m.weight", 2, 192, "x");
  ASSERT_TRUE(found.ok()) << found.status().message();
  const auto source = unpack_row_quantized(*found, "x");
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(source->format, ops::WeightFormat::kInt8);
  EXPECT_EQ(source->group, 64);
  EXPECT_EQ(source->scales, (std::vector<float>{0.5F, 0.5F, 0.5F, 0.25F, 0.25F, 0.25F}));
  EXPECT_TRUE(source->offsets.empty());
  EXPECT_EQ(std::memcmp(source->codes.data(), matrix.codes.data(), matrix.codes.size()), 0);
}

TEST(RowQuantization, WhatDoesNotFitIsRefused) {
  EXPECT_EQ(Matrix(64).find(2, 32).code(), StatusCode::kCorrupt);
  EXPECT_EQ(Matrix(64).find(4, 64).code(), StatusCode::kCorrupt);
  EXPECT_EQ(Matrix(40).find(2, 40).code(), StatusCode::kUnsupported);
  Matrix bare(64);
  bare.tensors.erase("m.scale");
  EXPECT_EQ(bare.find(2, 64).message(), "x: m.scale: is missing");
  Matrix flat(64);
  flat.tensors["m.scale"].shape = {2};
  EXPECT_EQ(flat.find(2, 64).code(), StatusCode::kCorrupt);
  Matrix odd(64);
  odd.tensors["m.scale"].dtype = "I32";
  EXPECT_EQ(odd.find(2, 64).code(), StatusCode::kUnsupported);
  Matrix infinite(64);
  infinite.scales[1] = std::numeric_limits<float>::infinity();
  const auto found = find_row_quantized(infinite.tensors, "m.weight", 2, 64, "x");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(unpack_row_quantized(*found, "x").status().code(), StatusCode::kCorrupt);
}

}  // namespace
}  // namespace lanner::model
