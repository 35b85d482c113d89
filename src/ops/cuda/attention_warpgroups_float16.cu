// Attention of tiles of query rows over a cache of float16 on Hopper; see attention_warpgroups.cuh.

#include "ops/cuda/attention_warpgroups.cuh"

namespace lanner::ops::cuda {

cudaError_t attend_groups_float16(const KernelContext& context, const GroupLaunch& args) {
  return launch_group_of_type<__half>(context, args);
}

cudaError_t prepare_groups_float16() { return prepare_group_of_type<__half>(); }

}  // namespace lanner::ops::cuda
