// Attention of decoding rows over a cache of float16 on Hopper; see attention_pages.cuh.

#include "ops/cuda/attention_pages.cuh"

namespace lanner::ops::cuda {
namespace {

template <typename Shape>
using Pages = HalfPages<__half, Shape>;

}  // namespace

cudaError_t attend_pages_float16(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  return launch_pages_of<Pages>(context, work, rows);
}

cudaError_t prepare_pages_float16() { return prepare_pages_of<Pages>(); }

}  // namespace lanner::ops::cuda
