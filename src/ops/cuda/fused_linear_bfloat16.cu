// The fused kernels of linear operations for bfloat16 weights; see fused_linear.cuh.

#include "ops/cuda/fused_linear.cuh"

namespace lanner::ops::cuda {

cudaError_t run_fused_bfloat16(const KernelContext& context, const FusedLinear& args) {
  return run_fused<WeightFormat::kBF16>(context, args);
}

cudaError_t prepare_fused_bfloat16(int shared_bytes) { return prepare_fused<WeightFormat::kBF16>(shared_bytes); }

}  // namespace lanner::ops::cuda
