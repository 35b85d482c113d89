// The fused kernels of linear operations for float16 weights; see fused_linear.cuh.

#include "ops/cuda/fused_linear.cuh"

namespace lanner::ops::cuda {

cudaError_t run_fused_float16(const KernelContext& context, const FusedLinear& args) {
  return run_fused<WeightFormat::kF16>(context, args);
}

cudaError_t prepare_fused_float16(int shared_bytes) { return prepare_fused<WeightFormat::kF16>(shared_bytes); }

}  // namespace lanner::ops::cuda
