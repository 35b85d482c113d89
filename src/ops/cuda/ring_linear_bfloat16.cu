// The kernels with rings for bfloat16 weights; see ring_linear.cuh.

#include "ops/cuda/ring_linear.cuh"

namespace lanner::ops::cuda {

cudaError_t run_ring_bfloat16(const KernelContext& context, const FusedLinear& args) {
  return run_ring<__nv_bfloat16>(context, args);
}

cudaError_t prepare_ring_bfloat16(int shared_bytes) { return prepare_ring<__nv_bfloat16>(shared_bytes); }

}  // namespace lanner::ops::cuda
