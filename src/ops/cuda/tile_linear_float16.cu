// Linear operations of many rows in float16 on Hopper; see tile_linear.cuh.

#include "ops/cuda/tile_linear.cuh"

namespace lanner::ops::cuda {

cudaError_t run_tiles_float16(const KernelContext& context, const TilePlan& plan) {
  return launch_tile_linear_of_type<__half>(context, plan);
}

cudaError_t count_tile_clusters(int blocks, int* clusters) {
  return count_tile_clusters_of_type<__half>(blocks, clusters);
}

cudaError_t prepare_tile_linear_float16() { return prepare_tile_linear_of_type<__half>(); }

}  // namespace lanner::ops::cuda
