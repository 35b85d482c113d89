// Attention of decoding rows over a cache of bfloat16 on Hopper; see attention_pages.cuh.

#include "ops/cuda/attention_pages.cuh"

namespace lanner::ops::cuda {
namespace {

template <typename Shape>
using Pages = HalfPages<__nv_bfloat16, Shape>;

}  // namespace

cudaError_t attend_pages_bfloat16(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  return launch_pages_of<Pages>(context, work, rows);
}

cudaError_t prepare_pages_bfloat16() { return prepare_pages_of<Pages>(); }

}  // namespace lanner::ops::cuda
