#pragma once
// The fused kernels of linear operations for a few rows: norm, product and what is done with it, in one launch.

#include "ops/cuda/kernels.h"

namespace lanner::ops::cuda {

/// What becomes of a product. kStore leaves scale, bias and everything else to finish.h.
enum class Finish : std::uint8_t { kStore, kAdd, kGate, kGateAlone, kHead, kQkv };

struct FusedPart {
  const std::uint8_t* data;
  const void* scales;
  const float* bias;
  std::int64_t stride;
  std::int64_t first_output;  // column of its row 0 in the output
  std::int32_t rows;
  std::int32_t first_pair;
  std::int32_t index;  // in the Linear
};

/// Where queries, keys and values go.
struct HeadsOut {
  const float* angles;  // (rows, rotary_dim)
  float* q;             // (rows, heads, head_dim)
  std::byte* cache;     // of the layer: KvCacheView::head(0, layer, 0)
  std::int64_t block_bytes;
  std::int64_t head_bytes;
  const std::int32_t* row_slice;
  const DeviceSlice* slices;
  const std::int32_t* blocks;
  std::int32_t rotary_dim;
  std::int32_t head_dim;
  std::int32_t heads;
  std::int32_t kv_heads;
  DType dtype;
  KvCodes codes;  // not kNone: keys and values are finish_qkv()'s to write
};

/// One launch. All parts have one format, group and format of scales.
struct FusedLinear {
  const float* x;                 // (any, cols)
  const std::int32_t* row_index;  // (rows): rows of x, or null: 0..rows-1
  const std::int32_t* input_order;
  DeviceNorm norm;
  FusedPart parts[kMaxParts];
  std::int32_t part_count;
  std::int32_t pairs;
  std::int32_t rows;       // 1..kFusedRows
  std::int32_t first_row;  // of the batch, for kQkv
  std::int32_t cols;
  std::int32_t group;
  ScaleFormat scale_format;
  Finish finish;
  Gate gate;
  float scale;
  float soft_cap;
  float* out;
  std::int64_t out_stride;  // elements
  WeightFormat out_format;  // of kGate and kGateAlone: kF32, or the 16-bit type of the product that reads it
  HeadsOut heads;

  // Set by run_fused_linear().
  std::int32_t row_vectors;   // 16-byte vectors of a weight's row
  std::int32_t splits;        // warps that share a row
  std::int32_t steps;         // vectors that a lane takes of a row
  std::int32_t padded_steps;  // a multiple of what is in flight
  std::int32_t tile_steps;    // of them, as many as the input has room in shared memory
  std::int32_t iterations;    // tasks that a warp takes
  std::int32_t group_vectors;
  std::int32_t group_shift;  // log2 of group_vectors, or -1
};

/// Chooses the body for the number of rows, and how the work is cut.
cudaError_t run_fused_linear(const KernelContext& context, WeightFormat format, const FusedLinear& args);

/// Allows the kernels the device's shared memory.
cudaError_t prepare_fused_linear(int shared_bytes);

// The formats' own translation units.
cudaError_t run_fused_float32(const KernelContext& context, const FusedLinear& args);
cudaError_t run_fused_float16(const KernelContext& context, const FusedLinear& args);
cudaError_t run_fused_bfloat16(const KernelContext& context, const FusedLinear& args);
cudaError_t run_fused_int8(const KernelContext& context, const FusedLinear& args);
cudaError_t run_fused_int4(const KernelContext& context, const FusedLinear& args);
cudaError_t prepare_fused_float32(int shared_bytes);
cudaError_t prepare_fused_float16(int shared_bytes);
cudaError_t prepare_fused_bfloat16(int shared_bytes);
cudaError_t prepare_fused_int8(int shared_bytes);
cudaError_t prepare_fused_int4(int shared_bytes);

}  // namespace lanner::ops::cuda
