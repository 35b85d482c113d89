#pragma once
// The fused kernels of linear operations once more, for one or two rows and 16-bit weights on Hopper: what decode of
// few sequences is made of. See ring_linear.cuh.

#include "ops/cuda/fused_linear.h"

namespace lanner::ops::cuda {

inline constexpr std::int32_t kRingRows = 2;

/// How a launch is cut; see ring_linear.cuh.
struct RingCut {
  bool fits = false;        // else it is not for these kernels
  bool full = false;        // two large blocks a multiprocessor, not a small one
  std::int32_t splits = 1;  // warps of a group
  std::int32_t stages = 1;  // of a warp's ring
  std::int32_t blocks = 1;
};
RingCut cut_ring(const KernelContext& context, const FusedLinear& args);

/// Whether run_ring_linear() does the launch: weights and input can be copied sixteen bytes at a time and need no more
/// than a gain, the device has what it takes, and the order of sums may depend on it.
bool takes_ring(const KernelContext& context, WeightFormat format, const FusedLinear& args);
cudaError_t run_ring_linear(const KernelContext& context, WeightFormat format, const FusedLinear& args);

/// Allows the kernels the device's shared memory.
cudaError_t prepare_ring_linear(int shared_bytes);

// The formats' own translation units.
cudaError_t run_ring_float16(const KernelContext& context, const FusedLinear& args);
cudaError_t run_ring_bfloat16(const KernelContext& context, const FusedLinear& args);
cudaError_t prepare_ring_float16(int shared_bytes);
cudaError_t prepare_ring_bfloat16(int shared_bytes);

}  // namespace lanner::ops::cuda
