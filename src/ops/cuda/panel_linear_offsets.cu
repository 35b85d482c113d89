// The kernels of weights in panels whose scales come with offsets; see panel_linear.cuh.

#include "ops/cuda/panel_linear.cuh"

namespace lanner::ops::cuda {

cudaError_t run_panels_with_offsets(const KernelContext& context, const PanelLinear& args) {
  return run_panels_of<false>(context, args);
}

cudaError_t prepare_panels_with_offsets(int shared_bytes) { return prepare_panels_of<false>(shared_bytes); }

}  // namespace lanner::ops::cuda
