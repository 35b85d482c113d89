#pragma once
// The input of the kernels of panel_linear.cuh, brought into shared memory in fp16, as handed over or normed, beside
// the sums of its columns: of 128 where a group of the weights has as many or more, else of 32. kWhole says which.

#include "ops/cuda/fused_input.cuh"
#include "ops/cuda/panel_work.cuh"

namespace lanner::ops::cuda {

/// The sum over so many neighbouring lanes, in the first of them.
template <int kLanes>
__device__ __forceinline__ float sum_of_neighbours(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value += __shfl_down_sync(kAllLanes, value, offset);
  return value;
}

__device__ __forceinline__ float sum_of_word(std::uint32_t word) {
  const float2 pair = widen_word<__half>(word);
  return pair.x + pair.y;
}

/// x as it was handed over, eight columns a thread at a time, and its sums; zeros for rows that there are not.
template <bool kWhole, typename Shape>
__device__ __forceinline__ void take_input(const PanelWork& work, const PanelRoom<Shape>& room) {
  constexpr int kRows = Shape::kRows;
  constexpr int kAtOnce = kRows < 4 ? 4 / kRows : 1;
  constexpr int kLanes = kWhole ? kTileVectors : kTileVectors / 4;  // that have the columns of a sum
  const int vectors = work.tiles * kTileVectors;
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll 1
  for (int first = 0; first < vectors; first += kAtOnce * kPanelThreads) {
    uint4 v[kAtOnce][kRows];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = first + k * kPanelThreads + thread;
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        v[k][row] = make_uint4(0, 0, 0, 0);
        if (i < vectors && row < work.linear.rows) {
          v[k][row] = load_fresh(reinterpret_cast<const uint4*>(work.input + row * work.input_stride) + i);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = first + k * kPanelThreads + thread;
      if (i - thread % kWarp >= vectors) break;
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        const uint4 own = v[k][row];
        const float sum = sum_of_neighbours<kLanes>((sum_of_word(own.x) + sum_of_word(own.y)) +
                                                    (sum_of_word(own.z) + sum_of_word(own.w)));
        if (i >= vectors) continue;
        room.input[(i / 4 * kRows + row) * 4 + i % 4] = own;
        if (i % kLanes == 0) room.sums[i / kLanes * kRows + row] = sum;
      }
    }
  }
}

__device__ __forceinline__ float squares_of(float4 v, float sum) {
  return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
}

/// x times gain times 1 / rms, four columns a thread at a time, and its sums. first_gain: of the thread's first
/// columns.
template <bool kWhole, typename Shape>
__device__ __forceinline__ void norm_input(const PanelWork& work, const PanelRoom<Shape>& room, float4 first_gain) {
  constexpr int kRows = Shape::kRows;
  constexpr int kStride = 4 * kPanelThreads;
  const FusedLinear& args = work.linear;
  const int first = 4 * static_cast<int>(threadIdx.x);
  const auto load = [&](int row, int column) {
    if (row >= args.rows || column >= args.cols) return make_float4(0, 0, 0, 0);
    return load_fresh(reinterpret_cast<const float4*>(input_row(args, row) + column));
  };
  float4 held[kRows];
  float square[kRows];
#pragma unroll
  for (int row = 0; row < kRows; ++row) held[row] = load(row, first);
#pragma unroll
  for (int row = 0; row < kRows; ++row) square[row] = squares_of(held[row], 0);
#pragma unroll 1
  for (int column = first + kStride; column < args.cols; column += kStride) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) square[row] = squares_of(load(row, column), square[row]);
  }
  constexpr int kLanes = kWarp / kRows;  // that get one row's sum
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float sum = sum_each<kRows>(square, lane);
  if (lane % kLanes == 0) room.squares[lane / kLanes * kPanelWarps + TaskCursor::warp()] = sum;
  __syncthreads();
  float factor[kRows];
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    float all = 0;
#pragma unroll
    for (int i = 0; i < kPanelWarps / 4; ++i) {
      const float4 four = reinterpret_cast<const float4*>(room.squares + row * kPanelWarps)[i];
      all += (four.x + four.y) + (four.z + four.w);
    }
    factor[row] = rsqrtf(fmaf(all, work.inverse_cols, args.norm.eps));
  }
  const auto store = [&](int row, int column, float4 v, float4 gain) {
    constexpr int kSumLanes = kWhole ? kWarp : kWarp / 4;
    const uint2 half = make_uint2(operand_word<__half>(v.x * gain.x * factor[row], v.y * gain.y * factor[row]),
                                  operand_word<__half>(v.z * gain.z * factor[row], v.w * gain.w * factor[row]));
    const int i = column / 4;
    reinterpret_cast<uint2*>(room.input)[(i / 8 * kRows + row) * 8 + i % 8] = half;
    const float all = sum_of_neighbours<kSumLanes>(sum_of_word(half.x) + sum_of_word(half.y));
    if (i % kSumLanes == 0) room.sums[i / kSumLanes * kRows + row] = all;
  };
  if (first < args.cols) {  // the same for a warp: columns are whole tiles
#pragma unroll
    for (int row = 0; row < kRows; ++row) store(row, first, held[row], first_gain);
  }
#pragma unroll 1
  for (int column = first + kStride; column < args.cols; column += kStride) {
    const float4 gain = __ldg(reinterpret_cast<const float4*>(args.norm.gain + column));
#pragma unroll
    for (int row = 0; row < kRows; ++row) store(row, column, load(row, column), gain);
  }
}

}  // namespace lanner::ops::cuda
