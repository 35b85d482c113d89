#pragma once
// Products of plain fp32 matrices by the CPU's kernels, for what is computed of weights and of their inputs beside
// inference: sums of outer products, factors of matrices.
//
// The right-hand matrix and the result lie in strips of 32 columns. The caller cuts work between threads; a number of
// the result is summed in one order however that is done: ascending, one product after the other.

#include <cstdint>

#include "core/cpu_info.h"

namespace lanner::ops {

inline constexpr std::int64_t kStripColumns = 32;

/// A matrix (rows, 32): its columns 0 to 15 row by row, then columns 16 to 31 row by row.
struct StripView {
  const float* data = nullptr;
  std::int64_t rows = 0;
};

struct Strip {
  float* data = nullptr;
  std::int64_t rows = 0;

  float& at(std::int64_t row, std::int64_t column) const {
    constexpr std::int64_t kHalf = kStripColumns / 2;
    return data[(column / kHalf * rows + row) * kHalf + column % kHalf];
  }
  StripView view() const { return {data, rows}; }
};

enum class StripTarget : std::uint8_t { kSet, kAdd, kSubtract };

/// to[to_row + r] = (or +=, -=)  the sum over k < depth of left[r, k] * right[right_row + k],  r < rows.
struct StripProduct {
  const float* left = nullptr;  // (rows, depth)
  std::int64_t rows = 0;
  std::int64_t depth = 0;  // at least 1
  StripView right;
  std::int64_t right_row = 0;
  Strip to;  // neither left nor right
  std::int64_t to_row = 0;
  StripTarget target = StripTarget::kSet;
};

/// By the kernels of `isa`. From any thread.
void multiply_strip(const StripProduct& product, CpuIsa isa = selected_cpu_isa());

}  // namespace lanner::ops
