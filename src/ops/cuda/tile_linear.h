#pragma once
// The linear operations for many rows on Hopper: product and what is done with it, in one launch. See tile_linear.cuh.

#include "ops/cuda/fused_linear.h"

namespace lanner::ops::cuda {

/// One launch: the parts of `linear` lie in memory as one matrix of 16-bit rows. Its x, row_index, input_order and norm
/// are not looked at: `input` is what those have become.
struct TileLinear {
  FusedLinear linear;
  WeightFormat format = WeightFormat::kF16;  // kF16 or kBF16
  const void* input = nullptr;               // (rows, input_stride), zeros from cols on
  std::int64_t input_stride = 0;             // elements, a multiple of 8
};

/// Whether the device and these parts suit. Finish::kStore, kAdd and kHead take any; kGate and kQkv some shapes.
bool takes_tiles(const KernelContext& context, const TileLinear& args);
cudaError_t run_tile_linear(const KernelContext& context, const TileLinear& args);

// The types' own translation units.
struct TilePlan;
cudaError_t run_tiles_float16(const KernelContext& context, const TilePlan& plan);
cudaError_t run_tiles_bfloat16(const KernelContext& context, const TilePlan& plan);
/// How many clusters of so many of the largest blocks run at once.
cudaError_t count_tile_clusters(int blocks, int* clusters);
cudaError_t prepare_tile_linear_float16();
cudaError_t prepare_tile_linear_bfloat16();

}  // namespace lanner::ops::cuda
