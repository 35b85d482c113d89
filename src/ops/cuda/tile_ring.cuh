#pragma once
// Shared memory of a block of tile_linear.cuh, and which tiles it takes.

#include "ops/cuda/heads.cuh"
#include "ops/cuda/tile_plan.h"
#include "ops/cuda/warpgroup.cuh"

namespace lanner::ops::cuda {

inline constexpr int kTileWorkers = 2 * kWarpgroup;
inline constexpr int kTileGroup = 16;  // token tiles that meet a tile of W one after another
inline constexpr int kWorkersBarrier = 3;

template <int kTokens>
struct TileShape {
  static constexpr int kWeightBytes = kTileRows * kTileCols * 2;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kTileCols * 2;
  static constexpr int kBlocks = kTokens <= 64 ? 2 : 1;  // on a multiprocessor
  // The largest sums need registers that the warps that only copy hand over, a warpgroup at least.
  static constexpr bool kHandOver = kTokens >= 256;
  static constexpr int kThreads = kTileWorkers + (kHandOver ? kWarpgroup : kWarp);
  static constexpr int kStages = kTokens >= 256 ? 4 : kTokens >= 128 ? 6 : kTokens >= 64 ? 4 : 5;
  static constexpr int kRound = kTokens >= 128 ? 32 : 16;  // tokens that are finished at once
  static constexpr int kRounds = kTokens / kRound;
  static constexpr int kRoomStride = kTileRows / 2 + 4;  // floats: a warpgroup's rows of one token
  static constexpr int kSumStride = kTileRows + 4;       // of all rows, where a cluster adds up
  static constexpr int kRoomBytes = 2 * kRound * kRoomStride * 4;
  static constexpr int kBytes =
      1024 + kStages * kStageBytes + kRoomBytes + kTokens * static_cast<int>(sizeof(CachePlace)) + 2 * kStages * 8;
  static_assert(kTokens * kSumStride * 4 <= kStages * kStageBytes && kRoomBytes >= kTileWorkers * 8 * 4);
};

/// Shared memory of a block.
template <int kTokens>
struct TileRing {
  using Shape = TileShape<kTokens>;
  std::byte* stages;     // (kStages): weight (128, 64), input (kTokens, 64)
  float* rooms;          // (2 warpgroups, kRound, kRoomStride)
  CachePlace* places;    // (kTokens)
  std::uint64_t* full;   // (kStages)
  std::uint64_t* empty;  // (kStages)

  __device__ explicit TileRing(std::byte* base) {
    stages = base + (1024 - shared_address(base) % 1024) % 1024;
    rooms = reinterpret_cast<float*>(stages + Shape::kStages * Shape::kStageBytes);
    places = reinterpret_cast<CachePlace*>(rooms + Shape::kRoomBytes / 4);
    full = reinterpret_cast<std::uint64_t*>(places + kTokens);
    empty = full + Shape::kStages;
  }
  __device__ std::byte* weight(int stage) const { return stages + stage * Shape::kStageBytes; }
  __device__ std::byte* input(int stage) const { return weight(stage) + Shape::kWeightBytes; }
  __device__ float* sums() const { return reinterpret_cast<float*>(stages); }  // (kTokens, kSumStride)
};

struct TileOfWork {
  int weight;  // tile
  int token;   // tile
};
__device__ __forceinline__ TileOfWork tile_at(const TileWork& work, int index) {
  const int group = index / (work.weight_tiles * kTileGroup);
  const int count = min(kTileGroup, work.token_tiles - group * kTileGroup);
  const int rest = index - group * work.weight_tiles * kTileGroup;
  return {rest / count, group * kTileGroup + rest % count};
}

}  // namespace lanner::ops::cuda
