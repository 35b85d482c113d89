#pragma once
// Attention of single query rows: decode, and every layout that has no tiles.
//
// Bound: the bytes of keys and values, read once for all query heads of a KV head (8 at a time).
//
// A block takes one row, one KV head with up to kHeads of its query heads, and one piece of the context, and walks that
// in chunks of 256 tokens with a running softmax (arXiv 1805.02867):
//   scores   eight lanes share a token, each with every eighth vector of 8 elements of the key; queries are in shared
//   memory softmax  a warp takes a head values   a thread takes 8 elements and every n-th token, and keeps their sums
//   over all chunks in registers
// At the end the threads of one element add up in shared memory, in fixed order. If the context is cut into pieces,
// each leaves (largest score, sum, values), and those are added up in ascending order: by the blocks of a cluster, out
// of each other's shared memory, or by merge_pieces(). Tokens that the query does not see are not read: what lies there
// may be anything. What the previous kernel does not write is on its way to the second-level cache before it has ended.
//
// A cache in codes is read as the numbers that its codes stand for, in fp32.

#include "ops/cuda/attention.h"
#include "ops/cuda/device.cuh"
#include "ops/cuda/kv_codes.cuh"

namespace lanner::ops::cuda {

inline constexpr int kRowThreads = 256;
inline constexpr int kRowWarps = kRowThreads / kWarp;
inline constexpr int kChunk = static_cast<int>(kAttentionChunk);
inline constexpr int kBlockTokens = static_cast<int>(kKvBlockTokens);
inline constexpr int kVector = 8;  // elements that a lane loads at once
/// Blocks on one multiprocessor: what the registers of so many heads allow.
template <int kHeads>
inline constexpr int kRowBlocks = kHeads > 4   ? 1
                                  : kHeads > 2 ? 2
                                               : 3;

/// The context of one query row.
struct RowContext {
  int first_key;
  int tokens;  // keys first_key .. tokens - 1 are seen
  int base;    // where pieces are counted from
  const std::int32_t* blocks;
};

__device__ __forceinline__ RowContext context_of(const AttentionWork& work, int tokens, int first_block) {
  const int first_key = work.window == 0 ? 0 : max(0, tokens - work.window);
  return {first_key, tokens, first_key / kChunk * kChunk, work.blocks + first_block};
}
__device__ __forceinline__ RowContext context_of(const AttentionWork& work, int row) {
  const DeviceSlice slice = work.slices[work.row_slice[row]];
  return context_of(work, slice.first_position + row - slice.first_row + 1, slice.first_block);
}

/// The row that a block works for, or -1.
__device__ __forceinline__ int row_of(const AttentionWork& work, const AttentionRows& rows, int item) {
  if (rows.decode_count > 0) return rows.decode_rows[item].row;
  const PrefillTile tile = rows.prefill_tiles[item / static_cast<int>(kPrefillRows)];
  if (tile.slice < 0) return -1;
  const DeviceSlice slice = work.slices[tile.slice];
  const int row = tile.first_row + item % static_cast<int>(kPrefillRows);
  return row < slice.first_row + slice.rows ? row : -1;
}

template <typename T>
__device__ __forceinline__ void load_vector(const T* place, float (&out)[kVector]) {
  const uint4 v = load_fresh(reinterpret_cast<const uint4*>(place));
  const std::uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = widen_word<T>(words[i]);
    out[2 * i] = pair.x;
    out[2 * i + 1] = pair.y;
  }
}
template <>
__device__ __forceinline__ void load_vector<float>(const float* place, float (&out)[kVector]) {
  const float4 a = load_fresh(reinterpret_cast<const float4*>(place));
  const float4 b = load_fresh(reinterpret_cast<const float4*>(place) + 1);
  out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
  out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}

/// A key (row 0 to 63 of a block) or value (64 to 127) of one token and head, kept as T: a number's type, or CodesOf.
template <typename T>
struct CachedRow {
  const T* elements;
  __device__ __forceinline__ CachedRow(const std::byte* head, int row, int head_dim, bool /*there*/)
      : elements(reinterpret_cast<const T*>(head) + row * head_dim) {}
  __device__ __forceinline__ void load(int element, float (&out)[kVector]) const {
    load_vector(elements + element, out);
  }
};

template <KvCodes kCodes>
struct CodesOf {};
template <KvCodes kCodes>
struct CachedRow<CodesOf<kCodes>> {
  const std::byte* codes;
  float2 pair = {0, 0};  // scale and min
  /// there: whether the row may be read.
  __device__ __forceinline__ CachedRow(const std::byte* head, int row, int head_dim, bool there)
      : codes(head + row * code_bytes(kCodes, head_dim)) {
    if (there) pair = widen_word<__half>(load_fresh(code_pair_place(head, row, code_bytes(kCodes, head_dim))));
  }
  __device__ __forceinline__ void load(int element, float (&out)[kVector]) const {
    CodeWords<kCodes, kVector> words;
    words.load(codes + code_bytes(kCodes, element));
#pragma unroll
    for (int i = 0; i < kVector / 2; ++i) {
      const float2 counts = widen_word<__half>(words.pair(i));
      out[2 * i] = fmaf(counts.x, pair.x, pair.y);
      out[2 * i + 1] = fmaf(counts.y, pair.x, pair.y);
    }
  }
};

template <int kHeads, int kVectors>
struct RowRoom {
  static constexpr int kDims = 64 * kVectors;  // room for the head's elements
  float q[kHeads][kDims];
  float scores[kChunk][kHeads];        // then the weights
  float values[kRowThreads][kVector];  // at the end: (groups, kDims)
  float largest[kHeads];               // so far
  float sum[kHeads];
  float factor[kHeads];  // for sums of earlier chunks
  const std::byte* heads[kChunk / kBlockTokens];
};

/// Scores of tokens chunk .. chunk + 255, as far as they are seen; the others weigh nothing.
template <typename T, int kHeads, int kVectors>
__device__ void score_chunk(const AttentionWork& work, const RowContext& context, int first_head, int heads, int chunk,
                            int end, RowRoom<kHeads, kVectors>& room) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int part = lane % 8;
  const int first = static_cast<int>(threadIdx.x) / 8;
  constexpr int kAtOnce = kRowThreads / 8;
  const int rounds = (min(kChunk, end - chunk) + kAtOnce - 1) / kAtOnce;  // the same for every lane of a warp
#pragma unroll 2
  for (int round = 0; round < rounds; ++round) {
    const int token = round * kAtOnce + first;
    float score[kHeads] = {};
    const int position = chunk + token;
    const bool seen = position >= context.first_key && position < end;
    const CachedRow<T> key(room.heads[token / kBlockTokens], token % kBlockTokens, work.head_dim, seen);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int element = (v * 8 + part) * kVector;
      if (!seen || element >= work.head_dim) continue;
      float k[kVector];
      key.load(element, k);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) score[h] = fmaf(k[i], room.q[h][element + i], score[h]);
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int offset = 4; offset > 0; offset /= 2) score[h] += __shfl_xor_sync(kAllLanes, score[h], offset);
      if (part != h) continue;
      float value = capped(score[h] * work.scale, work.soft_cap);
      if (work.slopes != nullptr && h < heads) {
        value = fmaf(__ldg(work.slopes + first_head + h), static_cast<float>(position - context.tokens + 1), value);
      }
      room.scores[token][h] = seen ? value : -INFINITY;
    }
  }
}

/// From scores of the chunk's first `tokens` to weights relative to the largest score so far; warp h takes head h.
template <int kHeads, int kVectors>
__device__ void weigh_chunk(int tokens, RowRoom<kHeads, kVectors>& room) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int head = static_cast<int>(threadIdx.x) / kWarp;
  if (head >= kHeads) return;
  float score[kChunk / kWarp];
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kChunk / kWarp; ++i) {
    score[i] = i * kWarp + lane < tokens ? room.scores[i * kWarp + lane][head] : -INFINITY;
    largest = fmaxf(largest, score[i]);
  }
  const float before = room.largest[head];
  largest = fmaxf(warp_max(largest), before);
  const float origin = largest == -INFINITY ? 0.0F : largest;  // nothing seen yet: all weights are zero
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChunk / kWarp; ++i) {
    score[i] = expf(score[i] - origin);
    sum += score[i];
    if (i * kWarp + lane < tokens) room.scores[i * kWarp + lane][head] = score[i];
  }
  sum = warp_sum(sum);
  __syncwarp();  // every lane has read what lane 0 now overwrites
  if (lane == 0) {
    const float factor = expf(before - origin);
    room.factor[head] = factor;
    room.sum[head] = fmaf(room.sum[head], factor, sum);
    room.largest[head] = largest;
  }
}

/// Adds the chunk's weighted values to this thread's sums.
template <typename T, int kHeads, int kVectors>
__device__ void add_values(const AttentionWork& work, int begin, int end, const RowRoom<kHeads, kVectors>& room,
                           float (&sum)[kHeads][kVector]) {
  constexpr int kPlaces = 8 * kVectors;  // vectors of a head
  constexpr int kGroups = kRowThreads / kPlaces;
  const int element = static_cast<int>(threadIdx.x) % kPlaces * kVector;
  const int group = static_cast<int>(threadIdx.x) / kPlaces;
  if (element >= work.head_dim) return;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum[h][i] *= room.factor[h];
  }
  const int first = begin / kGroups * kGroups + group;
#pragma unroll 4
  for (int token = first < begin ? first + kGroups : first; token < end; token += kGroups) {
    const CachedRow<T> row(room.heads[token / kBlockTokens], kBlockTokens + token % kBlockTokens, work.head_dim, true);
    float value[kVector];
    row.load(element, value);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const float weight = room.scores[token][h];
#pragma unroll
      for (int i = 0; i < kVector; ++i) sum[h][i] = fmaf(weight, value[i], sum[h][i]);
    }
  }
}

/// Adds up the threads' sums head by head and writes the result, or the piece's part of it.
template <int kHeads, int kVectors>
__device__ void write_row(const AttentionWork& work, const AttentionRows& rows, int item, int row, int first_head,
                          int heads, RowRoom<kHeads, kVectors>& room, const float (&sum)[kHeads][kVector]) {
  constexpr int kPlaces = 8 * kVectors;
  constexpr int kGroups = kRowThreads / kPlaces;
  const int thread = static_cast<int>(threadIdx.x);
  const int piece = static_cast<int>(blockIdx.z);
  const float* values = &room.values[0][0];
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kVector; ++i) room.values[thread][i] = sum[h][i];
    __syncthreads();
    if (h >= heads || thread >= work.head_dim) continue;
    float total = 0;
    for (int group = 0; group < kGroups; ++group) total += values[group * kPlaces * kVector + thread];
    const std::int64_t head = first_head + h;
    if (rows.partials == 1) {
      store_operand(work.out_format, work.out,
                    (static_cast<std::int64_t>(row) * work.heads + head) * work.head_dim + thread, total / room.sum[h]);
      continue;
    }
    if (rows.together) {
      room.q[h][thread] = total;  // nobody needs the queries any more
      continue;
    }
    const std::int64_t place = (static_cast<std::int64_t>(item) * work.heads + head) * rows.partials + piece;
    rows.partial_values[place * work.head_dim + thread] = total;
    if (thread == 0) rows.partial_sums[place] = make_float2(room.largest[h], room.sum[h]);
  }
}

/// The blocks of a cluster add up their pieces, each for its share of the elements.
template <int kHeads, int kVectors>
__device__ void write_together(const AttentionWork& work, const AttentionRows& rows, int row, int first_head, int heads,
                               const RowRoom<kHeads, kVectors>& room) {
  constexpr int kMostPieces = 8;
  const int rank = static_cast<int>(blockIdx.z);
  const int count = heads * work.head_dim;
  const int share = (count + rows.partials - 1) / rows.partials;
  cluster_barrier();
  for (int i = rank * share + static_cast<int>(threadIdx.x); i < min(count, (rank + 1) * share); i += kRowThreads) {
    const int head = i / work.head_dim;
    const int element = i % work.head_dim;
    float largest[kMostPieces];
    float sum[kMostPieces];
    float value[kMostPieces];
#pragma unroll
    for (int piece = 0; piece < kMostPieces; ++piece) {
      if (piece >= rows.partials) break;
      largest[piece] = load_from_block(&room.largest[head], piece);
      sum[piece] = load_from_block(&room.sum[head], piece);
      value[piece] = load_from_block(&room.q[head][element], piece);
    }
    float most = -INFINITY;
#pragma unroll
    for (int piece = 0; piece < kMostPieces; ++piece) {
      if (piece < rows.partials) most = fmaxf(most, largest[piece]);
    }
    float total = 0;
    float weight = 0;
#pragma unroll
    for (int piece = 0; piece < kMostPieces; ++piece) {
      if (piece >= rows.partials) break;
      const float factor = expf(largest[piece] - most);
      weight = fmaf(sum[piece], factor, weight);
      total = fmaf(value[piece], factor, total);
    }
    store_operand(work.out_format, work.out,
                  (static_cast<std::int64_t>(row) * work.heads + first_head + head) * work.head_dim + element,
                  total / weight);
  }
  cluster_barrier();  // nobody leaves while others read from it
}

/// Asks for the keys and values of the block's first chunk: into the second-level cache, where what the previous kernel
/// is about to write appears, too.
__device__ __forceinline__ void prefetch_chunk(const AttentionWork& work, const RowContext& context, int kv_head,
                                               int begin, int end) {
  constexpr int kLine = 128;
  const int last = min(end, begin + kChunk);
  const int lines = static_cast<int>(work.head_bytes / kLine);
  for (int block = begin / kBlockTokens; block * kBlockTokens < last; ++block) {
    const std::byte* head = work.cache + context.blocks[block] * work.block_bytes + kv_head * work.head_bytes;
    for (int i = static_cast<int>(threadIdx.x); i < lines; i += kRowThreads) {
      prefetch(head + static_cast<std::int64_t>(i) * kLine);
    }
  }
}

/// Grid: (rows, KV heads * tiles of their query heads, pieces).
template <typename T, int kHeads, int kVectors>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks<kHeads>)
    attend_row(const __grid_constant__ AttentionWork work, const __grid_constant__ AttentionRows rows) {
  __shared__ __align__(16) RowRoom<kHeads, kVectors> room;
  const int item = static_cast<int>(blockIdx.x);
  const int row = row_of(work, rows, item);
  if (row < 0) {
    wait_for_previous();
    return;
  }
  const int group = work.heads / work.kv_heads;
  const int kv_head = static_cast<int>(blockIdx.y) % work.kv_heads;
  const int first_of_group = static_cast<int>(blockIdx.y) / work.kv_heads * kHeads;
  const int first_head = kv_head * group + first_of_group;
  const int heads = min(kHeads, group - first_of_group);
  const RowContext context = context_of(work, row);
  const int begin = context.base + static_cast<int>(blockIdx.z) * rows.piece_tokens;
  const int end = rows.partials == 1 ? context.tokens : min(context.tokens, begin + rows.piece_tokens);
  // What comes so far is the batch, which is there before a step's first kernel.
  if (begin < end) prefetch_chunk(work, context, kv_head, begin, end);
  wait_for_previous();
  let_next_start();
  if (begin >= end && !rows.together) return;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < kHeads * work.head_dim; i += kRowThreads) {
    const int head = i / work.head_dim;
    const float* q = work.q + (static_cast<std::int64_t>(row) * work.heads + first_head + head) * work.head_dim;
    room.q[head][i % work.head_dim] = head < heads ? load_fresh(q + i % work.head_dim) : 0.0F;
  }
  if (thread < kHeads) {
    room.largest[thread] = -INFINITY;
    room.sum[thread] = 0;
  }
  float sum[kHeads][kVector] = {};
  for (int chunk = begin; chunk < end; chunk += kChunk) {
    __syncthreads();
    if (thread < kChunk / kBlockTokens && chunk + thread * kBlockTokens < end) {
      const std::int64_t block = context.blocks[chunk / kBlockTokens + thread];
      room.heads[thread] = work.cache + block * work.block_bytes + kv_head * work.head_bytes;
    }
    __syncthreads();
    score_chunk<T>(work, context, first_head, heads, chunk, end, room);
    __syncthreads();
    weigh_chunk(end - chunk, room);
    __syncthreads();
    add_values<T>(work, max(0, context.first_key - chunk), min(kChunk, end - chunk), room, sum);
  }
  write_row(work, rows, item, row, first_head, heads, room, sum);
  if (rows.together) write_together(work, rows, row, first_head, heads, room);
}

template <typename T, int kHeads, int kVectors>
cudaError_t launch_rows(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  const std::int64_t tiles = ceil_div(work.heads / work.kv_heads, kHeads);
  const std::int64_t items = rows.decode_count > 0 ? rows.decode_count : rows.prefill_count * kPrefillRows;
  const dim3 grid(static_cast<unsigned>(items), static_cast<unsigned>(work.kv_heads * tiles),
                  static_cast<unsigned>(rows.partials));
  return launch_clusters(context, attend_row<T, kHeads, kVectors>, grid, kRowThreads, 0,
                         rows.together ? dim3(1, 1, grid.z) : dim3(1), work, rows);
}

template <typename T, int kVectors>
cudaError_t launch_rows_of_heads(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  const int group = work.heads / work.kv_heads;
  if (group == 1) return launch_rows<T, 1, kVectors>(context, work, rows);
  if (group == 2) return launch_rows<T, 2, kVectors>(context, work, rows);
  if (group <= 4) return launch_rows<T, 4, kVectors>(context, work, rows);
  return launch_rows<T, 8, kVectors>(context, work, rows);
}

template <typename T>
cudaError_t launch_rows_of_type(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  if (work.head_dim <= 64) return launch_rows_of_heads<T, 1>(context, work, rows);
  if (work.head_dim <= 128) return launch_rows_of_heads<T, 2>(context, work, rows);
  if (work.head_dim <= 256) return launch_rows_of_heads<T, 4>(context, work, rows);
  return cudaErrorInvalidValue;
}

}  // namespace lanner::ops::cuda
