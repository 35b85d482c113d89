#pragma once
// How the output of a product is cut into tiles: what host and kernels of tile_linear.cuh agree on.

#include <cuda.h>

#include "ops/cuda/tile_linear.h"

namespace lanner::ops::cuda {

inline constexpr int kTileRows = 128;  // of the weight, in a tile
inline constexpr int kTileCols = 64;   // of a step
inline constexpr int kTileBands = kTileRows / 16;

/// What the kernels are told. The rows of a tile are bands of 16, and a thread holds rows p and p + 8 of a band: for
/// kGate row p is of the gate and row p + 8 the same of the other part; for kQkv they are partners of the rotation;
/// elsewhere neighbours. The copy of the weight brings them into that order.
struct TileWork {
  FusedLinear linear;
  std::int32_t width;  // rows of all parts
  bool vectors;        // outputs of a token lie at multiples of 16 bytes
  bool biased;
  std::int32_t weight_tiles;
  std::int32_t token_tiles;
  std::int32_t pairs;         // of weight tiles; the last may lack its second, whose block then works for nothing
  std::int32_t steps;         // of kTileCols
  std::int32_t pair;          // neighbouring tiles of the weight, 1 or 2, whose blocks copy their input together
  std::int32_t split;         // blocks that share the steps of a tile; pair * split are a cluster
  std::int32_t weight_bytes;  // that a step copies
  // kQkv: a tile is `head_bands` bands of each of `tile_heads` heads, or one of `head_tiles` of a single one.
  std::int32_t head_bands;
  std::int32_t tile_heads;
  std::int32_t head_tiles;
};

struct TilePlan {
  TileWork work;
  CUtensorMap weight;
  CUtensorMap input;
  std::int32_t weight_dimensions;
  std::int32_t tokens;  // of a tile: 16, 32, 64, 128 or 256
};

}  // namespace lanner::ops::cuda
