// Attention of tiles of query rows over a cache of bfloat16; see attention_tiles.cuh.

#include "ops/cuda/attention_tiles.cuh"

namespace lanner::ops::cuda {

cudaError_t attend_tiles_bfloat16(const KernelContext& context, const AttentionWork& work, const PrefillTile* tiles,
                                  std::int32_t count) {
  return launch_tiles_of_type<__nv_bfloat16>(context, work, tiles, count);
}

cudaError_t prepare_tiles_bfloat16() { return prepare_tiles_of_type<__nv_bfloat16>(); }

}  // namespace lanner::ops::cuda
