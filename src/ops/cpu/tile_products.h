#pragma once
// Products of many rows in tiles of bf16 (TileKernels): how one worker takes a block of rows through panels.
//
// Panels go in pairs, and rows in pairs of tiles. A pair of panels is unpacked once for all rows of the block, whose
// input stays in the second-level cache meanwhile. Of more columns than fit there a chunk goes first, of several pairs
// of panels one after the other; their sums wait in memory for the next chunk. Neither order nor roundings of a sum
// depend on how many rows or panels a block has, so that the bits are the same however work is cut.

#include <algorithm>
#include <cstdint>

#include "ops/cpu/kernels.h"

namespace lanner::ops::cpu {

inline constexpr std::int64_t kBlockTileRows = 256;  // most rows of a block
inline constexpr std::int64_t kChunkTiles = 64;      // most tiles of columns at once: 1 MiB of a whole block's input
inline constexpr std::int64_t kGroupPairs = 16;      // pairs of panels that share a chunk
inline constexpr std::int64_t kPairRows = 2 * kBf16TileRows;

inline constexpr std::int64_t tiles_of(std::int64_t cols) { return (cols + kBf16TileColumns - 1) / kBf16TileColumns; }
inline constexpr std::int64_t pairs_of(std::int64_t panels) { return (panels + 1) / 2; }
/// Numbers of bf16 in the input tiles of so many rows, whole pairs of tiles.
inline constexpr std::int64_t input_elements(std::int64_t rows, std::int64_t cols) {
  return (rows + kPairRows - 1) / kPairRows * kPairRows * tiles_of(cols) * kBf16TileColumns;
}
/// The first of a row's places.
inline std::uint16_t* tile_row(std::uint16_t* input, std::int64_t row, std::int64_t cols) {
  return input + row / kBf16TileRows * tiles_of(cols) * kBf16TileElements + row % kBf16TileRows * kBf16TileColumns;
}

/// What a worker unpacks and sums into.
struct TileRoom {
  static constexpr std::int64_t kPanelElements = 2 * 2 * kChunkTiles * kBf16TileElements;  // two weights, two panels
  static constexpr std::int64_t kSums = kGroupPairs * kBlockTileRows * 2 * kPanelRows;
  static constexpr std::int64_t kBytes = kPanelElements * 2 + kSums * 4;
  std::uint16_t* panels = nullptr;
  float* sums = nullptr;
};

/// A weight, or two of the same size whose products are wanted together: gate and up.
struct TileWeights {
  const WeightView* weights[2] = {};
  std::int64_t count = 1;
  std::int64_t panels = 0;
};

struct TileRows {
  const std::uint16_t* input = nullptr;  // tiles, from row 0 on
  std::int64_t cols = 0;
  std::int64_t begin = 0;  // a multiple of kPairRows; end - begin is at most kBlockTileRows
  std::int64_t end = 0;
};

template <typename Visit>
class TileWalk {
 public:
  /// visit(panel, panels, row, rows, sums): sums[i] is weights[i]'s (rows, panels * 16), which may be changed.
  TileWalk(const TileKernels& kernels, const TileRoom& room, const TileWeights& task, const TileRows& rows,
           const Visit& visit)
      : kernels_(kernels), room_(room), task_(task), rows_(rows), visit_(visit) {}

  /// The pairs of panels [first, end).
  void run(std::int64_t first, std::int64_t end) const {
    const std::int64_t tiles = tiles_of(rows_.cols);
    const std::int64_t chunks = (tiles + kChunkTiles - 1) / kChunkTiles;
    const std::int64_t group = chunks == 1 ? 1 : kGroupPairs / task_.count;
    for (std::int64_t pair = first; pair < end; pair += group) {
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        for (std::int64_t here = pair; here < std::min(end, pair + group); ++here) {
          float* sums = room_.sums + (here - pair) * task_.count * kBlockTileRows * 2 * kPanelRows;
          multiply_pair(here, {.begin = tiles * chunk / chunks,
                               .end = tiles * (chunk + 1) / chunks,
                               .last = chunk == chunks - 1,
                               .sums = sums});
        }
      }
    }
  }

 private:
  struct Chunk {
    std::int64_t begin, end;  // tiles of columns
    bool last;
    float* sums;  // of the pair: for each pair of tiles of rows, for each weight
  };

  void multiply_pair(std::int64_t pair, const Chunk& chunk) const {
    const std::int64_t panel = 2 * pair;
    const std::int64_t panels = std::min<std::int64_t>(2, task_.panels - panel);
    const std::int64_t count = chunk.end - chunk.begin;
    const bool adds = chunk.begin > 0;  // to the sums of the chunk before
    std::uint16_t* unpacked[2][2];
    for (std::int64_t w = 0; w < task_.count; ++w) {
      for (std::int64_t p = 0; p < panels; ++p) {
        unpacked[w][p] = room_.panels + (2 * w + p) * kChunkTiles * kBf16TileElements;
        kernels_.unpack(*task_.weights[w], panel + p, chunk.begin, count, unpacked[w][p]);
      }
    }
    const std::int64_t row_tiles = tiles_of(rows_.cols) * kBf16TileElements;  // elements of 16 rows
    float* sums = chunk.sums;
    for (std::int64_t row = rows_.begin; row < rows_.end; row += kPairRows) {
      const std::int64_t rows = std::min(kPairRows, rows_.end - row);
      const std::uint16_t* input = rows_.input + row / kBf16TileRows * row_tiles + chunk.begin * kBf16TileElements;
      float* of_weights[2] = {};
      for (std::int64_t w = 0; w < task_.count; ++w) {
        of_weights[w] = sums + w * kPairRows * 2 * kPanelRows;
        kernels_.multiply({.input = input,
                           .input_below = rows > kBf16TileRows ? input + row_tiles : nullptr,
                           .panel = unpacked[w][0],
                           .panel_beside = panels == 2 ? unpacked[w][1] : nullptr,
                           .tiles = count,
                           .adds = adds,
                           .sums = of_weights[w]});
      }
      if (chunk.last) visit_(panel, panels, row, rows, of_weights);
      // Of one chunk nothing has to wait: the same sums stay in the first-level cache.
      if (adds || !chunk.last) sums += task_.count * kPairRows * 2 * kPanelRows;
    }
  }

  const TileKernels& kernels_;
  const TileRoom& room_;
  const TileWeights& task_;
  const TileRows& rows_;
  const Visit& visit_;
};

}  // namespace lanner::ops::cpu
