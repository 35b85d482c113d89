// Attention of decoding rows over a cache of bfloat16 on Hopper; see attention_pages.cuh.

#include "ops/cuda/attention_pages.cuh"

namespace lanner::ops::cuda {

cudaError_t attend_pages_bfloat16(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  return launch_pages_of_type<__nv_bfloat16>(context, work, rows);
}

cudaError_t prepare_pages_bfloat16() { return prepare_pages_of_type<__nv_bfloat16>(); }

}  // namespace lanner::ops::cuda
