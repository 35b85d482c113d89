#pragma once
// y = W · xᵀ and what follows, for 9 rows of x and more, on the tensor cores of Hopper.
//
// Bound: for few rows the bytes of W, for many the tensor cores.
//
// A tile is 128 rows of W and 16 to 256 rows of x ("tokens"): W takes the side of the product that is 64 rows at least,
// so that few tokens waste nothing. A block is two warpgroups of 64 weight rows each, which multiply, and one warp that
// copies: both operands in steps of 64 columns through a ring of stages (TMA). W's first stages are asked for before
// the previous kernel has ended. Blocks take tile after tile, and the copies of the next one run on while a tile is
// finished. Where there are fewer tiles than multiprocessors, the blocks of a cluster share the columns of a tile, and
// add up through each other's shared memory, in the order of their ranks.
//
// To be finished, sums go through shared memory, some tokens at a time, so that neighbouring lanes write neighbouring
// outputs.

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
  static_assert(kTokens * kSumStride * 4 <= kStages * kStageBytes);
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

// --- copying
// -----------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void copy_weight(const TileWork& work, int dimensions, const CUtensorMap& map, int tile,
                                            int step, std::byte* to, std::uint64_t* barrier, std::uint64_t policy) {
  const int col = step * kTileCols;
  if (dimensions == 2) {
    copy_box(to, map, barrier, policy, col, tile * kTileRows);
  } else if (dimensions == 4) {
    copy_box(to, map, barrier, policy, col, 0, 0, tile * kTileBands);
  } else {
    copy_box(to, map, barrier, policy, col, 0, 0, tile % work.head_tiles * work.head_bands,
             tile / work.head_tiles * work.tile_heads);
  }
}

/// One thread keeps the ring full.
template <int kTokens>
__device__ void copy_tiles(const TileWork& work, int dimensions, const CUtensorMap& weight, const CUtensorMap& input,
                           const TileRing<kTokens>& ring, int rank) {
  using Shape = TileShape<kTokens>;
  const int bytes = work.weight_bytes + kTokens * kTileCols * 2;
  const std::uint64_t once = work.token_tiles == 1 ? streaming_policy() : keeping_policy();
  const std::uint64_t keep = keeping_policy();
  const int tiles = work.weight_tiles * work.token_tiles;
  const int first_tile = static_cast<int>(blockIdx.x) / work.split;
  const int stride = static_cast<int>(gridDim.x) / work.split;
  const int begin = work.steps * rank / work.split;
  const int end = work.steps * (rank + 1) / work.split;
  // Weights do not wait for the previous kernel.
  const int early = first_tile < tiles ? min(Shape::kStages, end - begin) : 0;
  const TileOfWork first = tile_at(work, first_tile);
  for (int i = 0; i < early; ++i) {
    barrier_expect(ring.full + i, bytes);
    copy_weight(work, dimensions, weight, first.weight, begin + i, ring.weight(i), ring.full + i, once);
  }
  wait_for_previous();
  let_next_start();
  for (int i = 0; i < early; ++i) {
    copy_box(ring.input(i), input, ring.full + i, keep, (begin + i) * kTileCols, first.token * kTokens);
  }
  int count = early;
  for (int index = first_tile; index < tiles; index += stride) {
    const TileOfWork tile = tile_at(work, index);
    for (int step = index == first_tile ? begin + early : begin; step < end; ++step, ++count) {
      const int stage = count % Shape::kStages;
      barrier_wait(ring.empty + stage, (count / Shape::kStages & 1) ^ 1);
      barrier_expect(ring.full + stage, bytes);
      copy_weight(work, dimensions, weight, tile.weight, step, ring.weight(stage), ring.full + stage, once);
      copy_box(ring.input(stage), input, ring.full + stage, keep, step * kTileCols, tile.token * kTokens);
    }
  }
}

// --- finishing
// -----------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float with_bias(const FusedLinear& args, int row, float value) {
  int part = 0;
  while (part + 1 < args.part_count && row >= args.parts[part + 1].first_output) ++part;
  const float* bias = args.parts[part].bias;
  return bias == nullptr ? value : value + __ldg(bias + row - args.parts[part].first_output);
}

/// A row of the weight and a token. `before`: what the output held.
__device__ __forceinline__ void finish_row(const TileWork& work, int row, int token, float value, float before) {
  const FusedLinear& args = work.linear;
  if (row >= work.width) return;
  const std::int64_t index = token * args.out_stride + row;
  if (args.finish == Finish::kStore) {
    args.out[index] = value;
    return;
  }
  value = with_bias(args, row, value);
  if (args.finish == Finish::kAdd) {
    args.out[index] = before + args.scale * value;
  } else if (args.finish == Finish::kHead) {
    args.out[index] = capped(args.scale * value, args.soft_cap);
  } else {
    store_operand(args.out_format, args.out, index, gated(args.gate, value));
  }
}

__device__ __forceinline__ void finish_heads(const TileWork& work, int tile, int band, int p, int token,
                                             const CachePlace& place, float a, float b) {
  const FusedLinear& args = work.linear;
  const HeadsOut& heads = args.heads;
  const int in_tile = band / work.head_bands;
  int head = tile / work.head_tiles * work.tile_heads + in_tile;
  if (in_tile >= work.tile_heads || head >= heads.heads + 2 * heads.kv_heads) return;
  const int element = (tile % work.head_tiles * work.head_bands + band % work.head_bands) * 8 + p;
  int part = 0;
  if (head >= heads.heads) {
    head -= heads.heads;
    part = 1 + head / heads.kv_heads;
    head %= heads.kv_heads;
  }
  const int partner = element + heads.head_dim / 2;
  if (const float* bias = args.parts[part].bias; bias != nullptr) {
    a += __ldg(bias + head * heads.head_dim + element);
    b += __ldg(bias + head * heads.head_dim + partner);
  }
  write_head_pair(heads, place, args.first_row + token, part, head, element, partner, a, b);
}

/// Rows p and p + 8 of a band.
__device__ __forceinline__ void finish_rows(const TileWork& work, int tile, int band, int p, int token,
                                            const CachePlace& place, float a, float b, float2 before) {
  const FusedLinear& args = work.linear;
  if (args.finish == Finish::kQkv) {
    finish_heads(work, tile, band, p, token, place, a, b);
  } else if (args.finish == Finish::kGate) {
    const int row = (tile * kTileBands + band) * 8 + p;
    if (row >= args.parts[0].rows) return;
    if (args.parts[0].bias != nullptr) a += __ldg(args.parts[0].bias + row);
    if (args.parts[1].bias != nullptr) b += __ldg(args.parts[1].bias + row);
    store_operand(args.out_format, args.out, token * args.out_stride + row, gated(args.gate, a) * b);
  } else {
    const int row = tile * kTileRows + band * 16 + p;
    finish_row(work, row, token, a, before.x);
    finish_row(work, row + 8, token, b, before.y);
  }
}

/// What the outputs of rows p and p + 8 hold, where that is needed.
__device__ __forceinline__ float2 load_before(const TileWork& work, int tile, int band, int p, int token) {
  const FusedLinear& args = work.linear;
  float2 before = {0, 0};
  if (args.finish != Finish::kAdd || token >= args.rows) return before;
  const int row = tile * kTileRows + band * 16 + p;
  const float* out = args.out + token * args.out_stride + row;
  if (row < work.width) before.x = load_fresh(out);
  if (row + 8 < work.width) before.y = load_fresh(out + 8);
  return before;
}

/// A warpgroup finishes its 64 rows of a tile. kAddTo: for Finish::kAdd alone, where the outputs' old values are loaded
/// a round before they are needed.
template <int kTokens, bool kAddTo>
__device__ __forceinline__ void finish_rounds(const TileWork& work, const TileRing<kTokens>& ring,
                                              const TileOfWork& tile, const float (&sum)[kTokens / 2]) {
  using Shape = TileShape<kTokens>;
  constexpr int kUnits = Shape::kRound * 32 / kWarpgroup;  // pairs of rows that a thread finishes in a round
  const FusedLinear& args = work.linear;
  const int group = static_cast<int>(threadIdx.x) / kWarpgroup;
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int lane = thread % kWarp;
  const int warp = thread / kWarp;
  const int p = thread % 8;
  const int band = group * 4 + thread / 8 % 4;
  const int first_token = tile.token * kTokens;
  float* room = ring.rooms + group * Shape::kRound * Shape::kRoomStride;
  const int own_row = warp * 16 + lane / 4;
  const int row = tile.weight * kTileRows + band * 16 + p;
  const bool exists[2] = {row < work.width, row + 8 < work.width};
  const float2 bias =
      kAddTo ? make_float2(exists[0] ? with_bias(args, row, 0) : 0.0F, exists[1] ? with_bias(args, row + 8, 0) : 0.0F)
             : make_float2(0, 0);
  float* out = args.out + row;
  float2 before[2][kAddTo ? kUnits : 1];
  const auto load_round = [&](int round) {
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      const int token = first_token + round * Shape::kRound + i * 4 + warp;
      const float* place = out + token * args.out_stride;
      const bool inside = token < args.rows;
      before[round % 2][i].x = inside && exists[0] ? load_fresh(place) : 0.0F;
      before[round % 2][i].y = inside && exists[1] ? load_fresh(place + 8) : 0.0F;
    }
  };
  if constexpr (kAddTo) load_round(0);
#pragma unroll
  for (int round = 0; round < Shape::kRounds; ++round) {
    const int from = round * Shape::kRound;
    if constexpr (kAddTo) {
      if (round + 1 < Shape::kRounds) load_round(round + 1);
    }
    named_barrier(1 + group, kWarpgroup);  // the room is free
#pragma unroll
    for (int j = 0; j < Shape::kRound / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        room[(j * 8 + lane % 4 * 2 + i % 2) * Shape::kRoomStride + own_row + i / 2 * 8] = sum[(from / 8 + j) * 4 + i];
      }
    }
    named_barrier(1 + group, kWarpgroup);
    const float* values = room + warp * Shape::kRoomStride + thread / 8 % 4 * 16 + p;
    if constexpr (kAddTo) {
#pragma unroll
      for (int i = 0; i < kUnits; ++i, values += 4 * Shape::kRoomStride) {
        const int token = first_token + from + i * 4 + warp;
        if (token >= args.rows) continue;
        float* place = out + token * args.out_stride;
        if (exists[0]) place[0] = before[round % 2][i].x + args.scale * (values[0] + bias.x);
        if (exists[1]) place[8] = before[round % 2][i].y + args.scale * (values[8] + bias.y);
      }
    } else {
#pragma unroll 1
      for (int at = from + warp; at < from + Shape::kRound; at += 4, values += 4 * Shape::kRoomStride) {
        if (first_token + at >= args.rows) break;
        finish_rows(work, tile.weight, band, p, first_token + at, ring.places[at], values[0], values[8], {0, 0});
      }
    }
  }
}

/// The blocks of a cluster add up, and each finishes its share of the bands. The ring is not in use any more.
template <int kTokens>
__device__ __forceinline__ void finish_together(const TileWork& work, const TileRing<kTokens>& ring,
                                                const TileOfWork& tile, int rank, const float (&sum)[kTokens / 2]) {
  using Shape = TileShape<kTokens>;
  constexpr int kMostSplit = 8;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarp;
  const int own_row = thread / kWarp * 16 + lane / 4;
  float* sums = ring.sums();
  named_barrier(kWorkersBarrier, kTileWorkers);  // both warpgroups have read what they overwrite now
#pragma unroll
  for (int j = 0; j < kTokens / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums[(j * 8 + lane % 4 * 2 + i % 2) * Shape::kSumStride + own_row + i / 2 * 8] = sum[j * 4 + i];
    }
  }
  __syncwarp();
  cluster_arrive();
  cluster_wait();
  const int bands = kTileBands / work.split;
  const int units = kTokens * bands * 8;
  for (int unit = thread; unit < units; unit += kTileWorkers) {
    const int p = unit % 8;
    const int band = rank * bands + unit / 8 % bands;
    const int at = unit / 8 / bands;
    const int token = tile.token * kTokens + at;
    if (token >= work.linear.rows) break;
    const float2 before = load_before(work, tile.weight, band, p, token);
    const float* place = sums + at * Shape::kSumStride + band * 16 + p;
    float a[kMostSplit];
    float b[kMostSplit];
#pragma unroll
    for (int r = 0; r < kMostSplit; ++r) {
      a[r] = r < work.split ? load_from_block(place, r) : 0.0F;
      b[r] = r < work.split ? load_from_block(place + 8, r) : 0.0F;
    }
    float2 total = {0, 0};
#pragma unroll
    for (int r = 0; r < kMostSplit; ++r) {
      total.x += a[r];
      total.y += b[r];
    }
    finish_rows(work, tile.weight, band, p, token, ring.places[at], total.x, total.y, before);
  }
}

// --- multiplying
// -----------------------------------------------------------------------------------------------------------

template <typename T, int kTokens>
__device__ void multiply_tiles(const TileWork& work, const TileRing<kTokens>& ring, int rank) {
  using Shape = TileShape<kTokens>;
  const int thread = static_cast<int>(threadIdx.x);
  const int group = thread / kWarpgroup;
  const int tiles = work.weight_tiles * work.token_tiles;
  const int stride = static_cast<int>(gridDim.x) / work.split;
  const int begin = work.steps * rank / work.split;
  const int end = work.steps * (rank + 1) / work.split;
  wait_for_previous();
  int count = 0;
  for (int index = static_cast<int>(blockIdx.x) / work.split; index < tiles; index += stride) {
    const TileOfWork tile = tile_at(work, index);
    if (work.linear.finish == Finish::kQkv) {
      named_barrier(kWorkersBarrier, kTileWorkers);  // nobody finishes the tile before any more
      const int token = tile.token * kTokens + thread;
      if (thread < kTokens && token < work.linear.rows) {
        ring.places[thread] = find_cache_place(work.linear.heads, work.linear.first_row + token);
      }
      named_barrier(kWorkersBarrier, kTileWorkers);
    }
    float sum[kTokens / 2];
    for (int step = begin; step < end; ++step, ++count) {
      const int stage = count % Shape::kStages;
      barrier_wait(ring.full + stage, count / Shape::kStages & 1);
      const std::uint64_t a = operand_at(ring.weight(stage) + group * (kTileRows / 2) * kTileCols * 2);
      const std::uint64_t b = operand_at(ring.input(stage));
      products_begin();
#pragma unroll
      for (int i = 0; i < kTileCols / 16; ++i) {  // 16 columns are 32 bytes
        Warpgroup<T, kTokens>::multiply(sum, a + 2 * i, b + 2 * i, step > begin || i > 0 ? 1 : 0);
      }
      products_commit();
      products_wait<0>();
      if (thread % kWarp == 0) barrier_arrive(ring.empty + stage);
    }
    if (work.split > 1) {
      finish_together(work, ring, tile, rank, sum);
    } else if (work.linear.finish == Finish::kAdd) {
      finish_rounds<kTokens, true>(work, ring, tile, sum);
    } else {
      finish_rounds<kTokens, false>(work, ring, tile, sum);
    }
  }
}

template <typename T, int kTokens>
__global__ void __launch_bounds__(TileShape<kTokens>::kThreads, TileShape<kTokens>::kBlocks)
    tile_linear(const __grid_constant__ TileWork work, const __grid_constant__ CUtensorMap weight,
                const __grid_constant__ CUtensorMap input, int weight_dimensions) {
#if LANNER_WARPGROUPS
  extern __shared__ std::byte shared[];
  const TileRing<kTokens> ring(shared);
  if (threadIdx.x == 0) {
    for (int i = 0; i < TileShape<kTokens>::kStages; ++i) {
      barrier_init(ring.full + i, 1);
      barrier_init(ring.empty + i, kTileWorkers / kWarp);
    }
    barrier_fence();
  }
  __syncthreads();
  const int rank = static_cast<int>(blockIdx.x) % work.split;  // in the cluster
  if (threadIdx.x < kTileWorkers) {
    if constexpr (TileShape<kTokens>::kHandOver) take_registers<232>();
    multiply_tiles<T, kTokens>(work, ring, rank);
  } else {
    if constexpr (TileShape<kTokens>::kHandOver) give_registers<40>();
    if (threadIdx.x == kTileWorkers) {
      prefetch_map(weight);
      prefetch_map(input);
      copy_tiles<kTokens>(work, weight_dimensions, weight, input, ring, rank);
    }
    __syncwarp();
    if (work.split > 1) {
      cluster_arrive();
      cluster_wait();
    }
  }
  if (work.split > 1) {  // nobody leaves while others read from it
    __syncwarp();
    cluster_arrive();
    cluster_wait();
  }
#endif
}

template <typename T, int kTokens>
cudaError_t launch_tile_linear(const KernelContext& context, const TilePlan& plan) {
  using Shape = TileShape<kTokens>;
  const TileWork& work = plan.work;
  const std::int64_t tiles = static_cast<std::int64_t>(work.weight_tiles) * work.token_tiles;
  const std::int64_t most = static_cast<std::int64_t>(context.multiprocessors) * Shape::kBlocks;
  const std::int64_t grid = work.split > 1 ? tiles * work.split : std::min(tiles, most);
  return launch_clusters(context, tile_linear<T, kTokens>, dim3(static_cast<unsigned>(grid)), Shape::kThreads,
                         Shape::kBytes, dim3(static_cast<unsigned>(work.split)), work, plan.weight, plan.input,
                         plan.weight_dimensions);
}

template <typename T>
cudaError_t launch_tile_linear_of_type(const KernelContext& context, const TilePlan& plan) {
  switch (plan.tokens) {
    case 16: return launch_tile_linear<T, 16>(context, plan);
    case 32: return launch_tile_linear<T, 32>(context, plan);
    case 64: return launch_tile_linear<T, 64>(context, plan);
    case 128: return launch_tile_linear<T, 128>(context, plan);
    case 256: return launch_tile_linear<T, 256>(context, plan);
    default: return cudaErrorInvalidValue;
  }
}

template <typename T>
cudaError_t prepare_tile_linear_of_type() {
  const auto allow = [](auto* kernel, int bytes) {
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  };
  LANNER_RETURN_IF_CUDA_ERROR(allow(tile_linear<T, 16>, TileShape<16>::kBytes));
  LANNER_RETURN_IF_CUDA_ERROR(allow(tile_linear<T, 32>, TileShape<32>::kBytes));
  LANNER_RETURN_IF_CUDA_ERROR(allow(tile_linear<T, 64>, TileShape<64>::kBytes));
  LANNER_RETURN_IF_CUDA_ERROR(allow(tile_linear<T, 128>, TileShape<128>::kBytes));
  return allow(tile_linear<T, 256>, TileShape<256>::kBytes);
}

}  // namespace lanner::ops::cuda
