#pragma once
// A quantized weight as a dense 16-bit matrix.

#include "ops/cuda/kernels.h"

namespace lanner::ops::cuda {

/// out (weight.rows, stride) fp16, zeros from cols on; stride a multiple of 8, in elements.
cudaError_t widen_weight(const KernelContext& context, const DeviceWeight& weight, void* out, std::int64_t stride);

}  // namespace lanner::ops::cuda
