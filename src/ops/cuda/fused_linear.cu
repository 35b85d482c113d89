// The door of the fused kernels: each format has its own translation unit, so that they compile side by side. What the
// kernels with rings take goes to them.

#include "ops/cuda/device.cuh"
#include "ops/cuda/fused_linear.h"
#include "ops/cuda/ring_linear.h"

namespace lanner::ops::cuda {

cudaError_t run_fused_linear(const KernelContext& context, WeightFormat format, const FusedLinear& args) {
  if (takes_ring(context, format, args)) return run_ring_linear(context, format, args);
  switch (format) {
    case WeightFormat::kF32: return run_fused_float32(context, args);
    case WeightFormat::kF16: return run_fused_float16(context, args);
    case WeightFormat::kBF16: return run_fused_bfloat16(context, args);
    case WeightFormat::kInt8: return run_fused_int8(context, args);
    case WeightFormat::kInt4: return run_fused_int4(context, args);
  }
  return cudaErrorInvalidValue;
}

cudaError_t prepare_fused_linear(int shared_bytes) {
  LANNER_RETURN_IF_CUDA_ERROR(prepare_ring_linear(shared_bytes));
  LANNER_RETURN_IF_CUDA_ERROR(prepare_fused_float32(shared_bytes));
  LANNER_RETURN_IF_CUDA_ERROR(prepare_fused_float16(shared_bytes));
  LANNER_RETURN_IF_CUDA_ERROR(prepare_fused_bfloat16(shared_bytes));
  LANNER_RETURN_IF_CUDA_ERROR(prepare_fused_int8(shared_bytes));
  return prepare_fused_int4(shared_bytes);
}

}  // namespace lanner::ops::cuda
