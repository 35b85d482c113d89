// Linear operations of many rows in bfloat16 on Hopper; see tile_linear.cuh.

#include "ops/cuda/tile_linear.cuh"

namespace lanner::ops::cuda {

cudaError_t run_tiles_bfloat16(const KernelContext& context, const TilePlan& plan) {
  return launch_tile_linear_of_type<__nv_bfloat16>(context, plan);
}

cudaError_t prepare_tile_linear_bfloat16() { return prepare_tile_linear_of_type<__nv_bfloat16>(); }

}  // namespace lanner::ops::cuda
