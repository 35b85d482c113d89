#pragma once
// y = W · xᵀ and what follows, for 3 rows of x and more, on the tensor cores of Hopper.
//
// Bound: for few rows the bytes of W, for many the tensor cores; between them what the second-level cache hands out, 34
// bytes a clock for each multiprocessor.
//
// A tile is 128 rows of W and 16 to 256 rows of x ("tokens"): W takes the side of the product that is 64 rows at least,
// so that few tokens waste nothing. A block is two warpgroups of 64 weight rows each, which multiply, and a thread that
// copies: both operands in steps of 64 columns through a ring of stages (TMA). W's first stages are asked for before
// the previous kernel has ended. Blocks take tile after tile, and the copies of the next one run on while a tile is
// finished.
//
// Blocks of a cluster save the cache's bytes: two neighbouring tiles of W, a pair, meet the same tokens, and each of
// them copies half of those to both (multicast). A stage is copied to again when the warps of both have read it. And
// where there are fewer tiles than multiprocessors, blocks share the columns of a tile, and add up through each other's
// shared memory, in the order of their ranks.

#include <algorithm>

#include "ops/cuda/tile_finish.cuh"

namespace lanner::ops::cuda {

// --- copying

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

/// This block's share of the input of a step, to both blocks of a pair.
template <int kTokens>
__device__ __forceinline__ void copy_input(const TileWork& work, const TileSeat& seat, const CUtensorMap& map,
                                           const TileRing<kTokens>& ring, int stage, int step, int tile,
                                           std::uint64_t policy) {
  const int rows = kTokens / work.pair;
  std::byte* to = ring.input(stage) + seat.member * rows * kTileCols * 2;
  const int row = tile * kTokens + seat.member * rows;
  if (work.pair == 1) {
    copy_box(to, map, ring.full + stage, policy, step * kTileCols, row);
  } else {
    const auto blocks = static_cast<std::uint16_t>(3U << (2 * seat.rank));
    copy_box_to(blocks, to, map, ring.full + stage, policy, step * kTileCols, row);
  }
}

/// One thread keeps the ring full. Weights do not wait for the previous kernel: it asks for the first at once. How many
/// stages those are.
template <int kTokens>
__device__ int begin_tiles(const TileWork& work, const TileSeat& seat, int dimensions, const CUtensorMap& weight,
                           const TileRing<kTokens>& ring) {
  const TileWalk walk(work, seat);
  if (!walk.more()) return 0;
  const int early = min(TileShape<kTokens>::kStages, seat.end - seat.begin);
  const TileOfWork tile = walk.tile(work, seat);
  const std::uint64_t policy = work.token_tiles == 1 ? streaming_policy() : keeping_policy();
  for (int i = 0; i < early; ++i) {
    barrier_expect(ring.full + i, work.weight_bytes + kTokens * kTileCols * 2);
    copy_weight(work, dimensions, weight, tile.weight, seat.begin + i, ring.weight(i), ring.full + i, policy);
  }
  return early;
}

/// Behind begin_tiles(), which has asked for the weights of `early` stages.
template <int kTokens>
__device__ void copy_tiles(const TileWork& work, const TileSeat& seat, int dimensions, const CUtensorMap& weight,
                           const CUtensorMap& input, const TileRing<kTokens>& ring, int early) {
  using Shape = TileShape<kTokens>;
  const std::uint64_t once = work.token_tiles == 1 ? streaming_policy() : keeping_policy();
  const std::uint64_t keep = keeping_policy();
  wait_for_previous();
  let_next_start();
  int count = 0;
  for (TileWalk walk(work, seat); walk.more(); walk.next()) {
    const TileOfWork tile = walk.tile(work, seat);
    for (int step = seat.begin; step < seat.end; ++step, ++count) {
      const int stage = count % Shape::kStages;
      if (count >= early) {
        barrier_wait(ring.empty + stage, (count / Shape::kStages & 1) ^ 1);
        barrier_expect(ring.full + stage, work.weight_bytes + kTokens * kTileCols * 2);
        copy_weight(work, dimensions, weight, tile.weight, step, ring.weight(stage), ring.full + stage, once);
      }
      copy_input(work, seat, input, ring, stage, step, tile.token, keep);
    }
  }
}

// --- multiplying

/// The warp has read a stage: both blocks of a pair may be copied to.
__device__ __forceinline__ void leave_stage(const TileWork& work, const TileSeat& seat, std::uint64_t* empty) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (work.pair == 1) {
    if (lane == 0) barrier_arrive(empty);
  } else if (lane < 2) {
    barrier_arrive_at(empty, 2 * seat.rank + lane);
  }
}

/// For kQkv: key_place() of the token that is the thread's to know. Reads nothing but the batch.
template <int kTokens>
__device__ __forceinline__ std::byte* find_key(const TileWork& work, const TileRing<kTokens>& ring,
                                               const TileOfWork& tile) {
  const int in_tile = work.split > 1 ? static_cast<int>(threadIdx.x) : own_token<kTokens>();
  const int token = tile.token * kTokens + in_tile;
  if (in_tile >= kTokens || token >= work.linear.rows) return nullptr;
  std::byte* key = key_place(work.linear.heads, work.linear.first_row + token);
  if (work.split > 1) ring.keys()[in_tile] = key;
  return key;
}

template <typename T, int kTokens>
__device__ void multiply_tiles(const TileWork& work, const TileSeat& seat, const TileRing<kTokens>& ring) {
  using Shape = TileShape<kTokens>;
  const int group = static_cast<int>(threadIdx.x) / kWarpgroup;
  TileWalk walk(work, seat);
  const bool heads = work.linear.finish == Finish::kQkv;
  std::byte* key = heads && walk.more() ? find_key(work, ring, walk.tile(work, seat)) : nullptr;
  wait_for_previous();
  int rooms_used = 0;
  for (int count = 0; walk.more(); walk.next()) {
    const TileOfWork tile = walk.tile(work, seat);
    float sum[kTokens / 2];
    for (int step = seat.begin; step < seat.end; ++step, ++count) {
      const int stage = count % Shape::kStages;
      barrier_wait(ring.full + stage, count / Shape::kStages & 1);
      const std::uint64_t a = operand_at(ring.weight(stage) + group * (kTileRows / 2) * kTileCols * 2);
      const std::uint64_t b = operand_at(ring.input(stage));
      products_begin();
#pragma unroll
      for (int i = 0; i < kTileCols / 16; ++i) {  // 16 columns are 32 bytes
        Warpgroup<T, kTokens>::multiply(sum, a + 2 * i, b + 2 * i, step > seat.begin || i > 0 ? 1 : 0);
      }
      products_commit();
      products_wait<1>();  // those of the step before are done, and its stage is free
      if (step > seat.begin) {
        leave_stage(work, seat, ring.empty + (count - 1) % Shape::kStages);
      } else if (heads && count > 0) {  // looked up while the tensor cores work
        key = find_key(work, ring, tile);
      }
    }
    products_wait<0>();
    leave_stage(work, seat, ring.empty + (count - 1) % Shape::kStages);
    const auto finish = [&]<TileFinish kFinish>() {
      finish_tile<kTokens, kFinish>(work, ring, seat, tile, key, &rooms_used, sum);
    };
    switch (work.linear.finish) {
      case Finish::kAdd: finish.template operator()<TileFinish::kAdd>(); break;
      case Finish::kGate: finish.template operator()<TileFinish::kGate>(); break;
      case Finish::kQkv: finish.template operator()<TileFinish::kQkv>(); break;
      default: finish.template operator()<TileFinish::kOther>(); break;
    }
  }
}

/// A barrier of all blocks that may write to each other's shared memory.
__device__ __forceinline__ void meet(const TileSeat& seat) {
  if (seat.blocks == 1) {
    __syncthreads();
  } else {
    cluster_barrier();
  }
}

template <typename T, int kTokens>
__global__ void __launch_bounds__(TileShape<kTokens>::kThreads, TileShape<kTokens>::kBlocks)
    tile_linear(const __grid_constant__ TileWork work, const __grid_constant__ CUtensorMap weight,
                const __grid_constant__ CUtensorMap input, int weight_dimensions) {
#if LANNER_WARPGROUPS
  extern __shared__ std::byte shared[];
  const TileRing<kTokens> ring(shared);
  const TileSeat seat(work);
  int early = 0;
  if (threadIdx.x == kTileWorkers) {
    for (int i = 0; i < TileShape<kTokens>::kStages; ++i) {
      barrier_init(ring.full + i, 1);
      barrier_init(ring.empty + i, work.pair * kTileWorkers / kWarp);
    }
    barrier_fence();
    early = begin_tiles<kTokens>(work, seat, weight_dimensions, weight, ring);
    prefetch_map(input);
  }
  __syncwarp();
  meet(seat);
  if (threadIdx.x < kTileWorkers) {
    if constexpr (TileShape<kTokens>::kHandOver) take_registers<232>();
    multiply_tiles<T, kTokens>(work, seat, ring);
  } else {
    if constexpr (TileShape<kTokens>::kHandOver) give_registers<40>();
    if (threadIdx.x == kTileWorkers) {
      copy_tiles<kTokens>(work, seat, weight_dimensions, weight, input, ring, early);
    }
    __syncwarp();
    if (work.split > 1) cluster_barrier();  // that of finish_together()
  }
  __syncwarp();
  if (seat.blocks > 1) cluster_barrier();  // nobody leaves while others read from it or arrive there
#endif
}

template <typename T, int kTokens>
cudaError_t launch_tile_linear(const KernelContext& context, const TilePlan& plan) {
  using Shape = TileShape<kTokens>;
  const TileWork& work = plan.work;
  const std::int64_t tiles = static_cast<std::int64_t>(work.pairs) * work.token_tiles;
  const std::int64_t most = static_cast<std::int64_t>(context.multiprocessors) * Shape::kBlocks / work.pair;
  const std::int64_t blocks = work.pair * work.split;
  const std::int64_t grid = (work.split > 1 ? tiles : std::min(tiles, most)) * blocks;
  return launch_clusters(context, tile_linear<T, kTokens>, dim3(static_cast<unsigned>(grid)), Shape::kThreads,
                         Shape::kBytes, dim3(static_cast<unsigned>(blocks)), work, plan.weight, plan.input,
                         plan.weight_dimensions);
}

template <typename T>
cudaError_t count_tile_clusters_of_type(int blocks, int* clusters) {
  using Shape = TileShape<256>;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(Shape::kThreads);
  config.dynamicSmemBytes = Shape::kBytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaOccupancyMaxActiveClusters(clusters, tile_linear<T, 256>, &config);
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
