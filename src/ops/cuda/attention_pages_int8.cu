// Attention of decoding rows over a cache in codes of 8 bits on Hopper; see attention_code_pages.cuh.

#include "ops/cuda/attention_code_pages.cuh"

namespace lanner::ops::cuda {
namespace {

template <typename Shape>
using Pages = CodePages<KvCodes::kInt8, Shape>;

}  // namespace

cudaError_t attend_pages_int8(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  return launch_pages_of<Pages>(context, work, rows);
}

cudaError_t prepare_pages_int8() { return prepare_pages_of<Pages>(); }

}  // namespace lanner::ops::cuda
