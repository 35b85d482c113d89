#pragma once
// Writing queries, keys and values: rotation, and the place of a key or value in the paged cache.

#include "ops/cuda/device.cuh"
#include "ops/cuda/fused_linear.h"

namespace lanner::ops::cuda {

__device__ __forceinline__ void store_cached(DType dtype, std::byte* base, std::int64_t index, float value) {
  if (dtype == DType::kF32) {
    reinterpret_cast<float*>(base)[index] = value;
  } else if (dtype == DType::kF16) {
    reinterpret_cast<__half*>(base)[index] = narrow<__half>(value);
  } else {
    reinterpret_cast<__nv_bfloat16*>(base)[index] = narrow<__nv_bfloat16>(value);
  }
}

/// Where a row of the batch keeps its keys and values.
struct CachePlace {
  std::byte* block;            // null: nowhere, the row belongs to no sequence
  std::int64_t first_element;  // of the key in its head
};

/// Reads nothing but the batch, which is there before a step's first kernel.
__device__ __forceinline__ CachePlace find_cache_place(const HeadsOut& out, std::int64_t row) {
  const std::int32_t slice_index = load_fresh(out.row_slice + row);
  if (slice_index < 0) return {nullptr, 0};
  const DeviceSlice slice = out.slices[slice_index];
  const std::int32_t position = slice.first_position + static_cast<std::int32_t>(row) - slice.first_row;
  const std::int32_t block =
      load_fresh(out.blocks + slice.first_block + position / static_cast<std::int32_t>(kKvBlockTokens));
  return {out.cache + block * out.block_bytes, position % kKvBlockTokens * out.head_dim};
}

/// Cosine and sine for elements `first` and its partner of a head of q (part 0) or k (1); no turn for others.
__device__ __forceinline__ float2 load_turn(const HeadsOut& out, std::int64_t row, int part, int first) {
  const int half = out.rotary_dim / 2;
  if (part >= 2 || first >= half) return {1, 0};
  const float* angles = out.angles + row * out.rotary_dim;
  return {load_fresh(angles + first), load_fresh(angles + half + first)};
}

/// Two partners of the rotation, turned.
__device__ __forceinline__ float2 turned_pair(float a, float b, float2 turn) {
  return {a * turn.x - b * turn.y, b * turn.x + a * turn.y};
}

/// Elements `first` and `second` of one head of q (part 0), k (1) or v (2); both lie on one side of the rotation. Of a
/// cache in codes queries alone.
__device__ __forceinline__ void write_head_pair(const HeadsOut& out, const CachePlace& place, std::int64_t row,
                                                int part, int head, int first, int second, float a, float b,
                                                float2 turn) {
  if (part < 2 && first < out.rotary_dim / 2) {
    const float2 turned = turned_pair(a, b, turn);
    a = turned.x;
    b = turned.y;
  }
  if (part == 0) {
    float* q = out.q + (row * out.heads + head) * out.head_dim;
    q[first] = a;
    q[second] = b;
    return;
  }
  if (place.block == nullptr) return;
  std::byte* cached = place.block + head * out.head_bytes;
  const std::int64_t element = place.first_element + (part == 2 ? kKvBlockTokens * out.head_dim : 0);
  store_cached(out.dtype, cached, element + first, a);
  store_cached(out.dtype, cached, element + second, b);
}

/// The i-th pair of a head, 0 <= i < head_dim / 2: partners of the rotation, and neighbours behind it.
__device__ __forceinline__ int2 head_pair(const HeadsOut& out, int i) {
  const int half = out.rotary_dim / 2;
  if (i < half) return {i, i + half};
  const int first = out.rotary_dim + 2 * (i - half);
  return {first, first + 1};
}

}  // namespace lanner::ops::cuda
