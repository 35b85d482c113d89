#pragma once
// Rows of activations made ready for a matrix product.

#include "ops/cuda/kernels.h"

namespace lanner::ops::cuda {

/// out[i] = order(norm(x[row_index[i]])), as `format` (kF32, kF16 or kBF16), fp16 held within its range. out (rows,
/// stride), zeros from cols on.
struct PrepareRows {
  const float* x = nullptr;                 // (any, cols)
  const std::int32_t* row_index = nullptr;  // (rows) or null: 0..rows-1
  const std::int32_t* input_order = nullptr;
  DeviceNorm norm;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  WeightFormat format = WeightFormat::kF32;
  void* out = nullptr;
  std::int64_t stride = 0;  // elements
};
cudaError_t prepare_rows(const KernelContext& context, const PrepareRows& args);

}  // namespace lanner::ops::cuda
