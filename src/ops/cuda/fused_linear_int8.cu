// The fused kernels of linear operations for int8 weights; see fused_linear.cuh.

#include "ops/cuda/fused_linear.cuh"

namespace lanner::ops::cuda {

cudaError_t run_fused_int8(const KernelContext& context, const FusedLinear& args) {
  return run_fused<WeightFormat::kInt8>(context, args);
}

cudaError_t prepare_fused_int8(int shared_bytes) { return prepare_fused<WeightFormat::kInt8>(shared_bytes); }

}  // namespace lanner::ops::cuda
