// The fused kernels of linear operations for float32 weights; see fused_linear.cuh.

#include "ops/cuda/fused_linear.cuh"

namespace lanner::ops::cuda {

cudaError_t run_fused_float32(const KernelContext& context, const FusedLinear& args) {
  return run_fused<WeightFormat::kF32>(context, args);
}

cudaError_t prepare_fused_float32(int shared_bytes) { return prepare_fused<WeightFormat::kF32>(shared_bytes); }

}  // namespace lanner::ops::cuda
