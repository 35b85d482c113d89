// The door of the kernels of weights in panels: what they take.

#include "ops/cuda/device.cuh"
#include "ops/cuda/panel_linear.cuh"

namespace lanner::ops::cuda {

bool panels_turn_heads(const HeadsOut& heads) {
  return heads.rotary_dim == heads.head_dim && heads.head_dim / 2 % kPanelHeight == 0;
}

bool panels_take_input(const KernelContext& context, const FusedLinear& linear) {
  if (linear.input_order != nullptr) return false;
  if (linear.norm.gain == nullptr) return true;
  std::int64_t rows = 1;
  while (rows < linear.rows) rows *= 2;
  return linear.norm.kind == NormKind::kRms && panel_bytes(rows, 2, linear.cols, true) <= context.shared_bytes - 1024;
}

cudaError_t run_panel_linear(const KernelContext& context, const PanelLinear& args) {
  return args.linear.scale_format == ScaleFormat::kHalfZero ? run_panels_with_zeros(context, args)
                                                            : run_panels_with_offsets(context, args);
}

cudaError_t prepare_panel_linear(int shared_bytes) {
  LANNER_RETURN_IF_CUDA_ERROR(prepare_panels_with_zeros(shared_bytes));
  return prepare_panels_with_offsets(shared_bytes);
}

}  // namespace lanner::ops::cuda
