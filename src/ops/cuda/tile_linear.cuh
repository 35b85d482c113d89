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
// outputs, four each. What has to be added to, and the angles, are asked for one round earlier.

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

// --- multiplying

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
      products_wait<1>();  // those of the step before are done, and its stage is free
      if (step > begin && thread % kWarp == 0) barrier_arrive(ring.empty + (count - 1) % Shape::kStages);
    }
    products_wait<0>();
    if (thread % kWarp == 0) barrier_arrive(ring.empty + (count - 1) % Shape::kStages);
    switch (work.linear.finish) {
      case Finish::kAdd: finish_tile<kTokens, TileFinish::kAdd>(work, ring, tile, rank, sum); break;
      case Finish::kGate: finish_tile<kTokens, TileFinish::kGate>(work, ring, tile, rank, sum); break;
      case Finish::kQkv: finish_tile<kTokens, TileFinish::kQkv>(work, ring, tile, rank, sum); break;
      default: finish_tile<kTokens, TileFinish::kOther>(work, ring, tile, rank, sum); break;
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
