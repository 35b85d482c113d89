// Attention of single rows over a cache of float32; see attention_rows.cuh.

#include "ops/cuda/attention_rows.cuh"

namespace lanner::ops::cuda {

cudaError_t attend_rows_float32(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  return launch_rows_of_type<float>(context, work, rows);
}

}  // namespace lanner::ops::cuda
