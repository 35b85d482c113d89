#pragma once
// Attention of many query rows of one sequence over a cache in codes: attention_tiles.cuh, with one step more.
//
// Bound: the tensor cores, and what it takes to make numbers of codes, which every tile of queries does for itself.
//
// The codes of a KV block are copied into shared memory while the products before are computed, and become numbers in
// the type that queries are rounded to before the products that read them. So no other copy of the cache is needed,
// however long contexts are. Hopper goes this way where widen_kv.h has no room for all prompts of a step.

#include "ops/cuda/attention_tiles.cuh"
#include "ops/cuda/kv_codes.cuh"

namespace lanner::ops::cuda {

/// With codes, scales and mins of the next keys (0) and values (1).
template <typename T, int kDim, KvCodes kCodes>
struct CodeTileRoom : TileRoom<T, kDim> {
  static constexpr int kCodeBytes = kTileKeys * kDim * kCodeBits<kCodes> / 8;
  alignas(16) std::byte codes[2][kCodeBytes];  // (64, kDim) each
  std::uint32_t pairs[2][kTileKeys];
};

/// Codes of a block's keys (part 0) or values (1), on their way.
template <typename T, int kDim, KvCodes kCodes>
__device__ __forceinline__ void copy_codes(const std::byte* head, int part, CodeTileRoom<T, kDim, kCodes>& room) {
  constexpr int kBytes = CodeTileRoom<T, kDim, kCodes>::kCodeBytes;
  constexpr int kPairs = static_cast<int>(sizeof(room.pairs[0]));
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = thread * 16; i < kBytes; i += kTileThreads * 16) {
    copy_async(room.codes[part] + i, head + part * kBytes + i, true);
  }
  if (thread * 16 < kPairs) {
    copy_async(reinterpret_cast<std::byte*>(room.pairs[part]) + thread * 16,
               head + 2 * kBytes + part * kPairs + thread * 16, true);
  }
}

/// Makes numbers of the codes that lie in the room; zeros from token `tokens` on, whatever the cache holds there.
template <typename T, int kDim, KvCodes kCodes>
__device__ __forceinline__ void widen_tokens(int part, int tokens, CodeTileRoom<T, kDim, kCodes>& room) {
  constexpr int kVector = 8;
  constexpr int kVectors = kDim / kVector;
  T(*to)[kDim + 8] = part == 0 ? room.keys : room.values;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kTileKeys * kVectors; i += kTileThreads) {
    const int token = i / kVectors;
    CodeWords<kCodes, kVector> words;
    words.read(room.codes[part] + i * (kVector * kCodeBits<kCodes> / 8));
    const std::uint32_t pair = room.pairs[part][token];
    uint4 numbers = {0, 0, 0, 0};
    if (token < tokens) {
      numbers = make_uint4(number_pair<T>(words.pair(0), pair), number_pair<T>(words.pair(1), pair),
                           number_pair<T>(words.pair(2), pair), number_pair<T>(words.pair(3), pair));
    }
    *reinterpret_cast<uint4*>(&to[token][i % kVectors * kVector]) = numbers;
  }
}

/// Grid: (tiles, heads).
template <typename T, int kDim, KvCodes kCodes>
__global__ void __launch_bounds__(kTileThreads)
    attend_code_tile(const __grid_constant__ AttentionWork work, const PrefillTile* tiles) {
  extern __shared__ __align__(16) std::byte shared[];
  auto& room = *reinterpret_cast<CodeTileRoom<T, kDim, kCodes>*>(shared);
  wait_for_previous();
  let_next_start();
  TilePlace place;
  if (!find_place(work, tiles, &place)) return;
  const int first = work.window == 0 ? 0 : max(0, place.position - work.window + 1) / kTileKeys;
  const int end = (place.tokens + kTileKeys - 1) / kTileKeys;
  const auto ask = [&](int block, int part) {
    if (block < end) {
      const std::byte* head = work.cache + place.blocks[block] * work.block_bytes + place.kv_head * work.head_bytes;
      copy_codes(head, part, room);
    }
    commit_copies();
  };
  ask(first, 0);
  ask(first, 1);
  copy_queries<T, kDim>(work, place, room);
  __syncthreads();
  WarpTile<T, kDim> tile;
  tile.keep_queries(room);
  for (int block = first; block < end; ++block) {
    float scores[WarpTile<T, kDim>::kKeyFragments][4];
    const int tokens = place.tokens - block * kTileKeys;
    wait_for_copies<1>();
    __syncthreads();  // the codes of the keys are there, and nobody reads the keys before them any more
    widen_tokens(0, tokens, room);
    __syncthreads();  // the keys are there, and their codes may be overwritten
    ask(block + 1, 0);
    tile.score(room, scores);
    tile.shape(work, place, block * kTileKeys, scores);
    tile.weigh(scores);
    wait_for_copies<1>();
    __syncthreads();  // the same for the values
    widen_tokens(1, tokens, room);
    __syncthreads();
    ask(block + 1, 1);
    tile.add_values(room, scores);
  }
  tile.write(work, place);
}

template <typename T, int kDim, KvCodes kCodes>
cudaError_t launch_code_tiles(const KernelContext& context, const AttentionWork& work, const PrefillTile* tiles,
                              std::int32_t count) {
  const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(work.heads));
  return launch(context, attend_code_tile<T, kDim, kCodes>, grid, kTileThreads, sizeof(CodeTileRoom<T, kDim, kCodes>),
                work, tiles);
}

template <typename T, int kDim>
cudaError_t launch_code_tiles_of_size(const KernelContext& context, const AttentionWork& work, const PrefillTile* tiles,
                                      std::int32_t count) {
  return work.codes == KvCodes::kInt8 ? launch_code_tiles<T, kDim, KvCodes::kInt8>(context, work, tiles, count)
                                      : launch_code_tiles<T, kDim, KvCodes::kInt4>(context, work, tiles, count);
}

template <typename T>
cudaError_t launch_code_tiles_of_type(const KernelContext& context, const AttentionWork& work, const PrefillTile* tiles,
                                      std::int32_t count) {
  return with_tile_head_dim(
      work.head_dim, [&]<int kDim>() { return launch_code_tiles_of_size<T, kDim>(context, work, tiles, count); });
}

template <typename T, int kDim, KvCodes kCodes>
cudaError_t prepare_code_tile(const KernelContext& context) {
  constexpr int kBytes = static_cast<int>(sizeof(CodeTileRoom<T, kDim, kCodes>));
  static_assert(kBytes <= code_tile_shared_bytes(kDim));
  if (code_tile_shared_bytes(kDim) > context.shared_bytes) return cudaSuccess;  // attention() does not take it, then
  return cudaFuncSetAttribute(attend_code_tile<T, kDim, kCodes>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
}

template <typename T, int kDim>
cudaError_t prepare_code_tiles_of_size(const KernelContext& context) {
  LANNER_RETURN_IF_CUDA_ERROR((prepare_code_tile<T, kDim, KvCodes::kInt8>(context)));
  return prepare_code_tile<T, kDim, KvCodes::kInt4>(context);
}

template <typename T>
cudaError_t prepare_code_tiles_of_type(const KernelContext& context) {
  for (const std::int64_t head_dim : kTileHeadDims) {
    LANNER_RETURN_IF_CUDA_ERROR(
        with_tile_head_dim(head_dim, [&]<int kDim>() { return prepare_code_tiles_of_size<T, kDim>(context); }));
  }
  return cudaSuccess;
}

}  // namespace lanner::ops::cuda
