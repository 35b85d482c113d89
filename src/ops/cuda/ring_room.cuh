#pragma once
// Shared memory of a block of ring_linear.cuh, and what host and kernel agree on.

#include "ops/cuda/heads.cuh"
#include "ops/cuda/ring_linear.h"

namespace lanner::ops::cuda {

inline constexpr int kRingVectors = 2;                  // of 16 bytes, that a lane takes of a row and stage
inline constexpr int kRingSpan = kRingVectors * kWarp;  // of a row in a stage
inline constexpr int kRingSpanBytes = kRingSpan * 16;
inline constexpr int kRingStageBytes = 2 * kRingSpanBytes;
inline constexpr int kRingElements = 8;  // of 16 bytes

template <bool kFull>
inline constexpr int kRingWarps = kFull ? 16 : 8;
template <bool kFull>
inline constexpr int kRingBlocks = kFull ? 2 : 3;  // on a multiprocessor, as far as registers go
template <bool kFull>
inline constexpr int kRingStages = kFull ? 2 : 4;  // of a warp, at most

/// What the kernels are told.
struct RingWork {
  FusedLinear linear;  // with row_vectors and splits
  std::int32_t stages;
};

/// float4 of a row of x: whole warps of vectors.
constexpr __host__ __device__ int ring_input_vectors(int row_vectors) {
  return (row_vectors + kWarp - 1) / kWarp * kWarp * (kRingElements / 4);
}

template <int kRows, int kWarps>
struct RingRoom {
  static constexpr int kResults = 2 * kRows;
  std::byte* stages;    // (warps, stages, 2 rows, kRingSpan)
  float4* input;        // (kRows, input_vectors)
  float* squares;       // (kRows, warps)
  float* partials;      // (2, warps, kResults)
  CachePlace* places;   // (kRows): for kQkv
  std::uint64_t* full;  // (warps, kRingStages)
  int input_vectors;

  __device__ RingRoom(std::byte* base, const RingWork& work)
      : input_vectors(ring_input_vectors(work.linear.row_vectors)) {
    stages = base;
    input = reinterpret_cast<float4*>(base + kWarps * work.stages * kRingStageBytes);
    squares = reinterpret_cast<float*>(input + kRows * input_vectors);
    partials = squares + kRows * kWarps;
    places = reinterpret_cast<CachePlace*>(partials + 2 * kWarps * kResults);
    full = reinterpret_cast<std::uint64_t*>(places + kRows);
  }
};

/// Bytes of a block's RingRoom.
constexpr std::int64_t ring_bytes(std::int64_t rows, bool full, std::int64_t stages, int row_vectors) {
  const std::int64_t warps = full ? kRingWarps<true> : kRingWarps<false>;
  const std::int64_t barriers = warps * (full ? kRingStages<true> : kRingStages<false>);
  return warps * stages * kRingStageBytes + 8 * barriers + 16 * rows * ring_input_vectors(row_vectors) +
         4 * rows * warps + 4 * 2 * warps * 2 * rows + rows * static_cast<std::int64_t>(sizeof(CachePlace));
}

}  // namespace lanner::ops::cuda
