#pragma once
// The fused kernels of linear operations once more, for up to kFusedRows rows and int4 weights in panels: what decode
// of few sequences is made of where weights have 4 bits. See panel_linear.cuh.

#include "ops/cuda/fused_linear.h"

namespace lanner::ops::cuda {

/// One launch. All parts are in panels.
struct PanelLinear {
  FusedLinear linear;
  const std::uint16_t* input;  // fp16 (rows, input_stride), normed and in order; null: linear.x is read
  std::int64_t input_stride;   // elements, a multiple of 8
};

inline constexpr std::int64_t kMostTurnedTasks = 2048;  // of a part
/// Whether kQkv's pairs lie in panels of their own, sixteen side by side; else the product has to be stored.
bool panels_turn_heads(const HeadsOut& heads);
/// Whether the kernels have room in shared memory for one row of so many columns beside weights in such groups.
bool panels_fit(const KernelContext& context, std::int64_t cols, std::int64_t group);
/// Whether the kernels norm linear.x themselves: the gain of an RMS norm, and no order.
bool panels_take_input(const FusedLinear& linear);
cudaError_t run_panel_linear(const KernelContext& context, const PanelLinear& args);

/// Allows the kernels the device's shared memory.
cudaError_t prepare_panel_linear(int shared_bytes);

// The translation units of the two kinds of scales: with whole zeros, and with offsets.
cudaError_t run_panels_with_zeros(const KernelContext& context, const PanelLinear& args);
cudaError_t run_panels_with_offsets(const KernelContext& context, const PanelLinear& args);
cudaError_t prepare_panels_with_zeros(int shared_bytes);
cudaError_t prepare_panels_with_offsets(int shared_bytes);

}  // namespace lanner::ops::cuda
