// The kernels with rings for float16 weights; see ring_linear.cuh.

#include "ops/cuda/ring_linear.cuh"

namespace lanner::ops::cuda {

cudaError_t run_ring_float16(const KernelContext& context, const FusedLinear& args) {
  return run_ring<__half>(context, args);
}

cudaError_t prepare_ring_float16(int shared_bytes) { return prepare_ring<__half>(shared_bytes); }

}  // namespace lanner::ops::cuda
