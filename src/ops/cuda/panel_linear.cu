// The door of the kernels of weights in panels: what they take.

#include "ops/cuda/panel_linear.cuh"

namespace lanner::ops::cuda {

bool panels_turn_heads(const HeadsOut& heads) {
  return heads.rotary_dim == heads.head_dim && heads.head_dim / 2 % kPanelHeight == 0 &&
         heads.heads * heads.head_dim / 2 / kPanelHeight <= kMostTurnedTasks;
}

bool panels_fit(const KernelContext& context, std::int64_t cols, std::int64_t group) {
  const std::int64_t pairs = pairs_bytes_of(group);
  const std::int64_t bytes = std::max(panel_bytes<PanelShape<PanelKind::kAlone, 1>>(cols, kSlots, pairs),
                                      panel_bytes<PanelShape<PanelKind::kTurned, 1>>(cols, kSlots, pairs));
  return bytes <= panel_room(context);
}

bool panels_take_input(const FusedLinear& linear) {
  return linear.input_order == nullptr && linear.norm.gain != nullptr && linear.norm.kind == NormKind::kRms;
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
