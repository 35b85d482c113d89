#pragma once
// The kernels' own products of many rows, where no library does them.

#include "ops/cuda/kernels.h"

namespace lanner::ops::cuda {

/// 16-bit operands, on tensor cores.
cudaError_t multiply_16_bit(const KernelContext& context, const GemmArgs& args);
/// fp32 throughout: format kF32, strides multiples of 4.
cudaError_t multiply_float32(const KernelContext& context, const GemmArgs& args);
cudaError_t prepare_gemm();

}  // namespace lanner::ops::cuda
