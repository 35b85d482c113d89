#pragma once
// Attention of many query rows of one sequence, on tensor cores: prompts.
//
// Bound: the tensor cores, 4 * head_dim operations for each query and key.
//
// A block takes 64 query rows of one head, a warp 16 of them, and walks the context a KV block of 64 tokens at a time
// (FlashAttention-2, arXiv 2307.08691): scores by m16n8k16, a running softmax on the fragments, and the weights,
// rounded to the cache's type, times the values. Keys and values have one place each in shared memory: while the scores
// are weighed the next keys are under way, while the next scores are computed the next values are. Rows of shared
// memory have 16 bytes of padding, so that the eight rows of a fragment lie in different banks. Queries stay in
// registers as fragments up to head_dim 128, above they are read again from shared memory.
//
// Tokens behind the slice's last one are zeros in shared memory, whatever the cache holds there. Whole blocks that no
// row of the tile sees are not read.

#include "ops/cuda/attention.h"
#include "ops/cuda/device.cuh"

namespace lanner::ops::cuda {

inline constexpr int kTileThreads = 128;
inline constexpr int kTileQueries = static_cast<int>(kPrefillRows);
inline constexpr int kTileKeys = static_cast<int>(kKvBlockTokens);
static_assert(kTileQueries == 16 * kTileThreads / kWarp);

template <typename T, int kDim>
struct TileRoom {
  static constexpr int kStride = kDim + 8;
  T queries[kTileQueries][kStride];
  T keys[kTileKeys][kStride];
  T values[kTileKeys][kStride];
};

/// What a block works on.
struct TilePlace {
  int first_row;  // of the batch
  int rows;       // of kTileQueries
  int position;   // of the first row
  int tokens;     // of the context that the last row sees
  int head;
  int kv_head;
  const std::int32_t* blocks;
};

/// The tokens of one KV block from `from`, keys or values, into shared memory; zeros from token `tokens` on.
template <typename T, int kDim>
__device__ __forceinline__ void copy_tokens(T (*to)[kDim + 8], const T* from, int tokens) {
  constexpr int kVectors = kDim / 8;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kTileKeys * kVectors; i += kTileThreads) {
    const int token = i / kVectors;
    const int element = i % kVectors * 8;
    copy_async(&to[token][element], from + token * kDim + element, token < tokens);
  }
}

template <typename T, int kDim>
__device__ __forceinline__ void copy_queries(const AttentionWork& work, const TilePlace& place,
                                             TileRoom<T, kDim>& room) {
  for (int i = static_cast<int>(threadIdx.x); i < kTileQueries * kDim; i += kTileThreads) {
    const int row = i / kDim;
    const std::int64_t from = (static_cast<std::int64_t>(place.first_row + row) * work.heads + place.head) * kDim;
    const float value = row < place.rows ? load_fresh(work.q + from + i % kDim) : 0.0F;
    room.queries[row][i % kDim] = narrow_operand<T>(value);
  }
}

/// One warp's 16 rows: their fragments and running softmax. A lane holds parts of rows lane / 4 and lane / 4 + 8.
template <typename T, int kDim>
struct WarpTile {
  static constexpr bool kKeepQueries = kDim <= 128;
  static constexpr int kKeyFragments = kTileKeys / 8;
  static constexpr int kSteps = kDim / 16;

  std::uint32_t queries[kKeepQueries ? kSteps : 1][4];
  float sum[kDim / 8][4] = {};  // of weighted values
  float largest[2] = {-INFINITY, -INFINITY};
  float total[2] = {0, 0};  // of this lane's weights
  int lane;
  int first_query;  // of the tile

  __device__ WarpTile() : lane(static_cast<int>(threadIdx.x) % kWarp), first_query(threadIdx.x / kWarp * 16) {}

  __device__ __forceinline__ void load_queries(const TileRoom<T, kDim>& room, int step, std::uint32_t (&to)[4]) const {
    load_matrices(to, &room.queries[first_query + lane % 16][step * 16 + lane / 16 * 8]);
  }
  __device__ __forceinline__ void keep_queries(const TileRoom<T, kDim>& room) {
    if constexpr (kKeepQueries) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) load_queries(room, step, queries[step]);
    }
  }

  __device__ __forceinline__ void score(const TileRoom<T, kDim>& room, float (&scores)[kKeyFragments][4]) const {
#pragma unroll
    for (int f = 0; f < kKeyFragments; ++f) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[f][i] = 0;
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      std::uint32_t a[4];
      if constexpr (kKeepQueries) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = queries[step][i];
      } else {
        load_queries(room, step, a);
      }
#pragma unroll
      for (int f = 0; f < kKeyFragments; f += 2) {  // keys 8f..8f + 7 and the eight behind them
        std::uint32_t b[4];
        load_matrices(b, &room.keys[f * 8 + lane / 16 * 8 + lane % 8][step * 16 + lane / 8 % 2 * 8]);
        multiply_add<T>(scores[f], a, b[0], b[1]);
        multiply_add<T>(scores[f + 1], a, b[2], b[3]);
      }
    }
  }

  /// Scale, cap, slope and mask. first_key: the position of the tile's first key.
  __device__ __forceinline__ void shape(const AttentionWork& work, const TilePlace& place, int first_key,
                                        float (&scores)[kKeyFragments][4]) const {
    const int last_position = place.position + kTileQueries - 1;
    const bool masked =
        first_key + kTileKeys - 1 > place.position || (work.window != 0 && first_key <= last_position - work.window);
    const float slope = work.slopes == nullptr ? 0.0F : __ldg(work.slopes + place.head);
#pragma unroll
    for (int f = 0; f < kKeyFragments; ++f) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first_key + f * 8 + lane % 4 * 2 + i % 2;
        const int position = place.position + first_query + lane / 4 + i / 2 * 8;
        float value = scores[f][i] * work.scale;
        if (work.soft_cap != 0) value = capped(value, work.soft_cap);
        value = fmaf(slope, static_cast<float>(key - position), value);
        if (masked && (key > position || (work.window != 0 && key <= position - work.window))) value = -INFINITY;
        scores[f][i] = value;
      }
    }
  }

  /// Scores become weights relative to the largest score so far, to which earlier sums are brought.
  __device__ __forceinline__ void weigh(float (&scores)[kKeyFragments][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // rows lane / 4 and lane / 4 + 8
      float most = largest[half];
#pragma unroll
      for (int f = 0; f < kKeyFragments; ++f) most = fmaxf(most, fmaxf(scores[f][2 * half], scores[f][2 * half + 1]));
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
      const float origin = most == -INFINITY ? 0.0F : most;  // nothing seen yet: all weights are zero
      const float factor = __expf(largest[half] - origin);
      largest[half] = most;
      total[half] *= factor;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        sum[d][2 * half] *= factor;
        sum[d][2 * half + 1] *= factor;
      }
#pragma unroll
      for (int f = 0; f < kKeyFragments; ++f) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[f][i] = __expf(scores[f][i] - origin);
          total[half] += scores[f][i];
        }
      }
    }
  }

  __device__ __forceinline__ void add_values(const TileRoom<T, kDim>& room, const float (&weights)[kKeyFragments][4]) {
#pragma unroll
    for (int f = 0; f < kKeyFragments; f += 2) {  // 16 tokens
      // The fragment of a sum is, narrowed, that of an operand: columns 0-7 from one, 8-15 from the next.
      const std::uint32_t a[4] = {
          operand_word<T>(weights[f][0], weights[f][1]), operand_word<T>(weights[f][2], weights[f][3]),
          operand_word<T>(weights[f + 1][0], weights[f + 1][1]), operand_word<T>(weights[f + 1][2], weights[f + 1][3])};
#pragma unroll
      for (int d = 0; d < kDim / 8; d += 2) {
        std::uint32_t b[4];
        load_matrices_transposed(b, &room.values[f * 8 + lane % 16][d * 8 + lane / 16 * 8]);
        multiply_add<T>(sum[d], a, b[0], b[1]);
        multiply_add<T>(sum[d + 1], a, b[2], b[3]);
      }
    }
  }

  __device__ __forceinline__ void write(const AttentionWork& work, const TilePlace& place) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[half] += __shfl_xor_sync(kAllLanes, total[half], 1);
      total[half] += __shfl_xor_sync(kAllLanes, total[half], 2);
      const int query = first_query + lane / 4 + half * 8;
      if (query >= place.rows) continue;
      const float inverse = 1.0F / total[half];
      const std::int64_t first =
          (static_cast<std::int64_t>(place.first_row + query) * work.heads + place.head) * kDim + lane % 4 * 2;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        store_operand_pair(work.out_format, work.out, first + d * 8, sum[d][2 * half] * inverse,
                           sum[d][2 * half + 1] * inverse);
      }
    }
  }
};

/// False: the tile is empty.
__device__ __forceinline__ bool find_place(const AttentionWork& work, const PrefillTile* tiles, TilePlace* place) {
  const PrefillTile tile = tiles[gridDim.x - 1 - blockIdx.x];  // blocks start in order, and late rows see the most
  if (tile.slice < 0) return false;
  const DeviceSlice slice = work.slices[tile.slice];
  place->first_row = tile.first_row;
  place->rows = min(kTileQueries, slice.first_row + slice.rows - tile.first_row);
  place->position = slice.first_position + tile.first_row - slice.first_row;
  place->tokens = place->position + place->rows;
  place->head = static_cast<int>(blockIdx.y);
  place->kv_head = place->head / (work.heads / work.kv_heads);
  place->blocks = work.blocks + slice.first_block;
  return place->rows > 0;
}

/// Grid: (tiles, heads).
template <typename T, int kDim>
__global__ void __launch_bounds__(kTileThreads)
    attend_tile(const __grid_constant__ AttentionWork work, const PrefillTile* tiles) {
  extern __shared__ __align__(16) std::byte shared[];
  auto& room = *reinterpret_cast<TileRoom<T, kDim>*>(shared);
  wait_for_previous();
  let_next_start();
  TilePlace place;
  if (!find_place(work, tiles, &place)) return;
  const int first = work.window == 0 ? 0 : max(0, place.position - work.window + 1) / kTileKeys;
  const int end = (place.tokens + kTileKeys - 1) / kTileKeys;
  const auto block_of = [&](int block) {
    const std::byte* head = work.cache + place.blocks[block] * work.block_bytes + place.kv_head * work.head_bytes;
    return reinterpret_cast<const T*>(head);
  };
  const auto copy_keys = [&](int block) {
    if (block < end) copy_tokens<T, kDim>(room.keys, block_of(block), place.tokens - block * kTileKeys);
    commit_copies();
  };
  const auto copy_values = [&](int block) {
    if (block < end) {
      copy_tokens<T, kDim>(room.values, block_of(block) + kTileKeys * kDim, place.tokens - block * kTileKeys);
    }
    commit_copies();
  };
  copy_keys(first);
  copy_values(first);
  copy_queries<T, kDim>(work, place, room);
  __syncthreads();
  WarpTile<T, kDim> tile;
  tile.keep_queries(room);
  for (int block = first; block < end; ++block) {
    float scores[WarpTile<T, kDim>::kKeyFragments][4];
    wait_for_copies<1>();
    __syncthreads();  // the keys are there
    tile.score(room, scores);
    __syncthreads();  // and may be overwritten
    copy_keys(block + 1);
    tile.shape(work, place, block * kTileKeys, scores);
    tile.weigh(scores);
    wait_for_copies<1>();
    __syncthreads();  // the values are there
    tile.add_values(room, scores);
    __syncthreads();  // and may be overwritten
    copy_values(block + 1);
  }
  tile.write(work, place);
}

template <typename T, int kDim>
cudaError_t launch_tiles(const KernelContext& context, const AttentionWork& work, const PrefillTile* tiles,
                         std::int32_t count) {
  const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(work.heads));
  return launch(context, attend_tile<T, kDim>, grid, kTileThreads, sizeof(TileRoom<T, kDim>), work, tiles);
}

template <typename T>
cudaError_t launch_tiles_of_type(const KernelContext& context, const AttentionWork& work, const PrefillTile* tiles,
                                 std::int32_t count) {
  return with_tile_head_dim(work.head_dim,
                            [&]<int kDim>() { return launch_tiles<T, kDim>(context, work, tiles, count); });
}

template <typename T, int kDim>
cudaError_t prepare_tile() {
  return cudaFuncSetAttribute(attend_tile<T, kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(sizeof(TileRoom<T, kDim>)));
}

template <typename T>
cudaError_t prepare_tiles_of_type() {
  for (const std::int64_t head_dim : kTileHeadDims) {
    LANNER_RETURN_IF_CUDA_ERROR(with_tile_head_dim(head_dim, [&]<int kDim>() { return prepare_tile<T, kDim>(); }));
  }
  return cudaSuccess;
}

}  // namespace lanner::ops::cuda
