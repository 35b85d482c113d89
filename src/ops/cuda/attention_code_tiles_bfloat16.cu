// Attention of tiles of query rows over a cache in codes, rounded to bfloat16; see attention_code_tiles.cuh.

#include "ops/cuda/attention_code_tiles.cuh"

namespace lanner::ops::cuda {

cudaError_t attend_code_tiles_bfloat16(const KernelContext& context, const AttentionWork& work,
                                       const PrefillTile* tiles, std::int32_t count) {
  return launch_code_tiles_of_type<__nv_bfloat16>(context, work, tiles, count);
}

cudaError_t prepare_code_tiles_bfloat16(const KernelContext& context) {
  return prepare_code_tiles_of_type<__nv_bfloat16>(context);
}

}  // namespace lanner::ops::cuda
