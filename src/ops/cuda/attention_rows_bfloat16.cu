// Attention of single rows over a cache of bfloat16; see attention_rows.cuh.

#include "ops/cuda/attention_rows.cuh"

namespace lanner::ops::cuda {

cudaError_t attend_rows_bfloat16(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  return launch_rows_of_type<__nv_bfloat16>(context, work, rows);
}

}  // namespace lanner::ops::cuda
