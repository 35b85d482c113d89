#pragma once
// Shared memory of a block of tile_linear.cuh, and which tiles it takes.

#include "ops/cuda/heads.cuh"
#include "ops/cuda/tile_plan.h"
#include "ops/cuda/warpgroup.cuh"

namespace lanner::ops::cuda {

inline constexpr int kTileWorkers = 2 * kWarpgroup;
inline constexpr int kTileGroup = 16;  // token tiles that meet a tile of W one after another
inline constexpr int kWorkersBarrier = 1;

template <int kTokens>
struct TileShape {
  static constexpr int kWeightBytes = kTileRows * kTileCols * 2;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kTileCols * 2;
  static constexpr int kBlocks = kTokens <= 64 ? 2 : 1;  // on a multiprocessor
  // The largest sums need registers that the warps that only copy hand over, a warpgroup at least.
  static constexpr bool kHandOver = kTokens >= 128;
  static constexpr int kThreads = kTileWorkers + (kHandOver ? kWarpgroup : kWarp);
  static constexpr int kStages = kTokens >= 256 ? 4 : kTokens >= 128 ? 6 : kTokens >= 32 ? 4 : 5;
  static constexpr int kRound = kTokens >= 128 ? 32 : kTokens >= 64 ? 8 : 16;  // tokens that leave at once
  static constexpr int kRounds = kTokens / kRound;
  static constexpr int kRoundOfWarp = kRound / (kTileWorkers / kWarp);  // that a warp writes out
  static constexpr int kRowBytes = kTileRows * 4 + 16;  // of a token in a room; so lanes meet different banks
  static constexpr int kRoomBytes = kRound * kRowBytes;
  static constexpr int kSums = kTokens / 8;  // of four numbers that a lane holds
  static constexpr int kBytes = 1024 + kStages * kStageBytes + 2 * kRoomBytes + 2 * kStages * 8;
  static_assert(kTokens * kTileRows * 4 <= kStages * kStageBytes && kRounds * kRoundOfWarp <= kWarp &&
                kTokens * 8 <= 2 * kRoomBytes);
};

/// Shared memory of a block.
template <int kTokens>
struct TileRing {
  using Shape = TileShape<kTokens>;
  std::byte* stages;     // (kStages): weight (128, 64), input (kTokens, 64)
  std::byte* rooms;      // (2, kRound, kRowBytes)
  std::uint64_t* full;   // (kStages)
  std::uint64_t* empty;  // (kStages)

  __device__ explicit TileRing(std::byte* base) {
    stages = base + (1024 - shared_address(base) % 1024) % 1024;
    rooms = stages + Shape::kStages * Shape::kStageBytes;
    full = reinterpret_cast<std::uint64_t*>(rooms + 2 * Shape::kRoomBytes);
    empty = full + Shape::kStages;
  }
  __device__ std::byte* weight(int stage) const { return stages + stage * Shape::kStageBytes; }
  __device__ std::byte* input(int stage) const { return weight(stage) + Shape::kWeightBytes; }
  // Where a cluster adds up, in place of the stages and the rooms:
  __device__ float* sums() const { return reinterpret_cast<float*>(stages); }           // (8 bands, kSums, lane, 4)
  __device__ std::byte** keys() const { return reinterpret_cast<std::byte**>(rooms); }  // (kTokens): key_place()
};

/// A block's place in its cluster: `pair` blocks of neighbouring weight tiles for each of the `split` shares of the
/// steps.
struct TileSeat {
  int blocks;  // of the cluster
  int member;  // of the pair
  int rank;    // share of the steps
  int begin;   // steps
  int end;

  __device__ explicit TileSeat(const TileWork& work) {
    blocks = work.pair * work.split;
    const int seat = static_cast<int>(blockIdx.x) % blocks;
    member = seat % work.pair;
    rank = seat / work.pair;
    begin = work.steps * rank / work.split;
    end = work.steps * (rank + 1) / work.split;
  }
};

struct TileOfWork {
  int weight;  // tile
  int token;   // tile
};

/// The tiles of a block, one after the other.
struct TileWalk {
  int index;
  int count;
  int stride;

  __device__ TileWalk(const TileWork& work, const TileSeat& seat) {
    index = static_cast<int>(blockIdx.x) / seat.blocks;
    count = work.pairs * work.token_tiles;
    stride = static_cast<int>(gridDim.x) / seat.blocks;
  }
  __device__ bool more() const { return index < count; }
  __device__ void next() { index += stride; }
  __device__ TileOfWork tile(const TileWork& work, const TileSeat& seat) const {
    const int of_group = work.pairs * kTileGroup;
    const int group = index / of_group;
    const int tokens = min(kTileGroup, work.token_tiles - group * kTileGroup);
    const int rest = index - group * of_group;
    return {rest / tokens * work.pair + seat.member, group * kTileGroup + rest % tokens};
  }
};

}  // namespace lanner::ops::cuda
