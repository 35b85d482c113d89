// Attention of single rows over a cache in codes of 4 bits; see attention_rows.cuh.

#include "ops/cuda/attention_rows.cuh"

namespace lanner::ops::cuda {

cudaError_t attend_rows_int4(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  return launch_rows_of_type<CodesOf<KvCodes::kInt4>>(context, work, rows);
}

}  // namespace lanner::ops::cuda
