// out (rows, width) = input (rows, cols) · weightᵀ, for many rows.
//
// Bound: the tensor cores (16 bits) or the fp32 units; with few rows, the bytes of the weight.
//
// 16 bits: a block computes 128 x 128 of the output, each of its 8 warps 64 x 32, by m16n8k16. Both operands pass
// through shared memory in tiles of 32 columns, four stages deep, copied asynchronously. A stage's rows are 32 columns
// and 8 of padding, 80 bytes: the eight 16-byte rows of a fragment then lie in different banks. Borders are zeros that
// the copy writes; the sums they take part in are not stored. Blocks that share the weight's tile are neighbours, so
// that its bytes come from the second-level cache for all but the first.
//
// fp32: 64 x 64 of the output in 256 threads, 4 x 4 each, tiles of 16 columns. For checkpoints that are fp32 and for
// tests: not a fast path.

#include "ops/cuda/device.cuh"
#include "ops/cuda/gemm.h"

namespace lanner::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTileRows = 128;
constexpr int kTileWidth = 128;
constexpr int kTileCols = 32;
constexpr int kRoomCols = kTileCols + 8;  // with padding
constexpr int kStages = 4;
constexpr int kWarpRows = 64;
constexpr int kWarpWidth = 32;
constexpr int kRowFragments = kWarpRows / 16;
constexpr int kWidthFragments = kWarpWidth / 8;
constexpr int kStageElements = (kTileRows + kTileWidth) * kRoomCols;
constexpr std::size_t kSharedBytes = std::size_t{kStages} * kStageElements * 2;

/// Rows first..first + kTileRows - 1 of a matrix, columns col..col + 31, into shared memory; zeros outside of it.
template <typename T>
__device__ __forceinline__ void copy_tile(T* tile, const T* matrix, std::int64_t stride, int first, int rows, int col,
                                          int cols) {
  constexpr int kVectors = kTileCols / 8;  // of a row
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kTileRows * kVectors; i += kThreads) {
    const int row = i / kVectors;
    const int offset = i % kVectors * 8;
    const bool inside = first + row < rows && col + offset < cols;
    const T* from = inside ? matrix + (first + row) * stride + (col + offset) : matrix;
    copy_async(tile + row * kRoomCols + offset, from, inside);
  }
}

/// One stage's part of a warp's 64 x 32 outputs.
template <typename T>
__device__ __forceinline__ void multiply_stage(const T* input, const T* weight, int lane,
                                               float (&sum)[kRowFragments][kWidthFragments][4]) {
#pragma unroll
  for (int col = 0; col < kTileCols; col += 16) {
    std::uint32_t a[kRowFragments][4];
    std::uint32_t b[kWidthFragments / 2][4];
    // Matrices of a: rows 0-7 and 8-15 at column 0, then both at column 8. Of b: outputs 0-7 at columns 0 and 8, then
    // 8-15.
#pragma unroll
    for (int f = 0; f < kRowFragments; ++f) {
      load_matrices(a[f], input + (f * 16 + lane % 16) * kRoomCols + col + lane / 16 * 8);
    }
#pragma unroll
    for (int f = 0; f < kWidthFragments / 2; ++f) {
      load_matrices(b[f], weight + (f * 16 + lane / 16 * 8 + lane % 8) * kRoomCols + col + lane / 8 % 2 * 8);
    }
#pragma unroll
    for (int f = 0; f < kRowFragments; ++f) {
#pragma unroll
      for (int g = 0; g < kWidthFragments; ++g) {
        multiply_add<T>(sum[f][g], a[f], b[g / 2][g % 2 * 2], b[g / 2][g % 2 * 2 + 1]);
      }
    }
  }
}

/// A lane holds outputs (r, c), (r, c + 1), (r + 8, c), (r + 8, c + 1) of a fragment, r = lane / 4, c = lane % 4 * 2.
__device__ __forceinline__ void store_tile(const GemmArgs& args, std::int64_t row, std::int64_t column, int lane,
                                           const float (&sum)[kRowFragments][kWidthFragments][4]) {
#pragma unroll
  for (int f = 0; f < kRowFragments; ++f) {
#pragma unroll
    for (int g = 0; g < kWidthFragments; ++g) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::int64_t r = row + f * 16 + lane / 4 + i / 2 * 8;
        const std::int64_t c = column + g * 8 + lane % 4 * 2 + i % 2;
        if (r < args.rows && c < args.width) args.out[r * args.out_stride + c] = sum[f][g][i];
      }
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) multiply(const __grid_constant__ GemmArgs args) {
  extern __shared__ __align__(16) std::byte shared[];
  T* stages = reinterpret_cast<T*>(shared);  // (kStages, 128 of input and 128 of weight, kRoomCols)
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warp_row = warp / (kTileWidth / kWarpWidth) * kWarpRows;
  const int warp_column = warp % (kTileWidth / kWarpWidth) * kWarpWidth;
  const int row = static_cast<int>(blockIdx.x) * kTileRows;
  const int column = static_cast<int>(blockIdx.y) * kTileWidth;
  const auto rows = static_cast<int>(args.rows);
  const auto width = static_cast<int>(args.width);
  const auto cols = static_cast<int>(args.cols);
  const T* input = static_cast<const T*>(args.input);
  const T* weight = static_cast<const T*>(args.weight);
  const int tiles = (cols + kTileCols - 1) / kTileCols;
  const auto copy_stage = [&](int tile) {
    if (tile < tiles) {
      T* stage = stages + tile % kStages * kStageElements;
      copy_tile(stage, input, args.input_stride, row, rows, tile * kTileCols, cols);
      copy_tile(stage + kTileRows * kRoomCols, weight, args.weight_stride, column, width, tile * kTileCols, cols);
    }
    commit_copies();  // empty behind the end, so that groups and tiles count alike
  };
  float sum[kRowFragments][kWidthFragments][4] = {};
  wait_for_previous();
  let_next_start();
  for (int tile = 0; tile < kStages - 1; ++tile) copy_stage(tile);
  for (int tile = 0; tile < tiles; ++tile) {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // the stage is full, and everybody has left the one that is filled next
    copy_stage(tile + kStages - 1);
    const T* stage = stages + tile % kStages * kStageElements;
    multiply_stage(stage + warp_row * kRoomCols, stage + (kTileRows + warp_column) * kRoomCols, lane, sum);
  }
  store_tile(args, row + warp_row, column + warp_column, lane, sum);
}

constexpr int kFloatTile = 64;
constexpr int kFloatCols = 16;

__global__ void __launch_bounds__(kThreads) multiply_floats(const __grid_constant__ GemmArgs args) {
  __shared__ float input[kFloatCols][kFloatTile + 1];
  __shared__ float weight[kFloatCols][kFloatTile + 1];
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kFloatTile;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * kFloatTile;
  const int own_row = thread / 16 * 4;
  const int own_column = thread % 16 * 4;
  float sum[4][4] = {};
  wait_for_previous();
  let_next_start();
  for (std::int64_t col = 0; col < args.cols; col += kFloatCols) {
    for (int i = thread; i < kFloatTile * kFloatCols; i += kThreads) {
      const int r = i / kFloatCols;
      const int c = i % kFloatCols;
      const bool inside = col + c < args.cols;
      const auto* x = static_cast<const float*>(args.input) + (row + r) * args.input_stride + col + c;
      const auto* w = static_cast<const float*>(args.weight) + (column + r) * args.weight_stride + col + c;
      input[c][r] = inside && row + r < args.rows ? load_fresh(x) : 0.0F;
      weight[c][r] = inside && column + r < args.width ? __ldg(w) : 0.0F;
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < kFloatCols; ++c) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int k = 0; k < 4; ++k) sum[r][k] = fmaf(input[c][own_row + r], weight[c][own_column + k], sum[r][k]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const std::int64_t to_row = row + own_row + r;
      const std::int64_t to_column = column + own_column + k;
      if (to_row < args.rows && to_column < args.width) args.out[to_row * args.out_stride + to_column] = sum[r][k];
    }
  }
}

dim3 tiles_of(const GemmArgs& args, int rows, int width) {
  return dim3(static_cast<unsigned>(ceil_div(args.rows, rows)), static_cast<unsigned>(ceil_div(args.width, width)));
}

}  // namespace

cudaError_t multiply_16_bit(const KernelContext& context, const GemmArgs& args) {
  const dim3 grid = tiles_of(args, kTileRows, kTileWidth);
  switch (args.format) {
    case WeightFormat::kF16: return launch(context, multiply<__half>, grid, kThreads, kSharedBytes, args);
    case WeightFormat::kBF16: return launch(context, multiply<__nv_bfloat16>, grid, kThreads, kSharedBytes, args);
    default: return cudaErrorInvalidValue;
  }
}

cudaError_t multiply_float32(const KernelContext& context, const GemmArgs& args) {
  return launch(context, multiply_floats, tiles_of(args, kFloatTile, kFloatTile), kThreads, 0, args);
}

cudaError_t prepare_gemm() {
  constexpr cudaFuncAttribute kAttribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  LANNER_RETURN_IF_CUDA_ERROR(cudaFuncSetAttribute(multiply<__half>, kAttribute, static_cast<int>(kSharedBytes)));
  return cudaFuncSetAttribute(multiply<__nv_bfloat16>, kAttribute, static_cast<int>(kSharedBytes));
}

}  // namespace lanner::ops::cuda
