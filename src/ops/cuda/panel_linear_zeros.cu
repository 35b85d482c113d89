// The kernels of weights in panels whose scales come with zeros; see panel_linear.cuh.

#include "ops/cuda/panel_linear.cuh"

namespace lanner::ops::cuda {

cudaError_t run_panels_with_zeros(const KernelContext& context, const PanelLinear& args) {
  return run_panels_of<true>(context, args);
}

cudaError_t prepare_panels_with_zeros(int shared_bytes) { return prepare_panels_of<true>(shared_bytes); }

}  // namespace lanner::ops::cuda
