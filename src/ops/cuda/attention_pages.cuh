#pragma once
// Attention of single query rows over 16-bit caches on Hopper: decode with up to four query heads of a KV head.
//
// Bound: the bytes of keys and values, read once for all query heads of a KV head.
//
// A block takes one row, one KV head and one piece of the context, and copies it page by page, keys and values in one
// piece each, through a ring of stages (bulk copies). What the previous kernel does not write is asked for before that
// has ended: all tokens but those of this very step. Each of eight or four warps takes 8 of a page's tokens, with a
// softmax of its own (arXiv 1805.02867), so that they meet only at the end:
//   scores   eight lanes share a token, each with every eighth vector of 8 elements of the key; queries in registers
//   values   a lane takes 8 elements and every second or fourth token
// At the end the warps' parts, then those of the pieces, are added up in ascending order: few rows are cut for all
// multiprocessors, and the blocks of a cluster do it, or merge_pieces() where there are more; many rows are cut only
// where some are much longer than others (decode_pieces.h), and the last block of a row does it. Tokens that the query
// does not see are not used: what lies there may be anything.

#include <algorithm>

#include "ops/cuda/attention_rows.cuh"
#include "ops/cuda/warpgroup.cuh"

namespace lanner::ops::cuda {

inline constexpr int kPagePasses = 2;  // of a warp over its tokens of a page
inline constexpr float kLog2E = 1.4426950F;
inline constexpr float kLn2 = 0.6931472F;

template <int kWarpCount, int kHeadCount, int kVectorCount>
struct PageShape {
  static constexpr int kWarps = kWarpCount;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kStages = 3;
  static constexpr int kTokens = 4 * kPagePasses * kWarps;  // of a page
  static constexpr int kHeads = kHeadCount;
  static constexpr int kVectors = kVectorCount;
  static constexpr int kDims = 64 * kVectors;
  static constexpr int kBlocks = kHeads > 2 ? 1 : 16 / kWarps;  // on a multiprocessor; 128 registers a thread
  static_assert(kBlockTokens % kTokens == 0);
};
template <int kHeads, int kVectors>
using FewPages = PageShape<8, kHeads, kVectors>;
template <int kHeads, int kVectors>
using ManyPages = PageShape<4, kHeads, kVectors>;

template <typename Shape>
struct PageRoom {
  float values[Shape::kWarps][Shape::kHeads][Shape::kDims];  // in the end those of the first warp are those of all
  float largest[Shape::kWarps][Shape::kHeads];               // score, times log2(e)
  float sum[Shape::kWarps][Shape::kHeads];
  std::uint64_t full[Shape::kStages];
  std::uint64_t empty[Shape::kStages];
  bool is_last;  // of a row's pieces to be there
};

/// What a block works on.
struct PageTask {
  DecodePiece piece;
  RowContext context;
  int old_tokens;  // in the cache before this step
  int begin;       // first token of the piece, a multiple of a page's
  int end;
  int kv_head;
  int pages;
};

template <typename Shape>
__device__ __forceinline__ PageTask find_task(const AttentionWork& work, const AttentionRows& rows) {
  PageTask task;
  if (rows.pieces != nullptr) {
    task.kv_head = static_cast<int>(blockIdx.x);
    task.piece = rows.pieces[blockIdx.y];
  } else {
    task.kv_head = static_cast<int>(blockIdx.y);
    task.piece.of = rows.decode_rows[blockIdx.x];
  }
  const DecodeRow& row = task.piece.of;
  task.context = context_of(work, row.tokens, row.first_block);
  task.old_tokens = row.old_tokens;
  if (rows.pieces == nullptr) {
    task.piece.begin = task.context.base + static_cast<int>(blockIdx.z) * rows.piece_tokens;
    task.piece.end = min(row.tokens, task.piece.begin + rows.piece_tokens);
  }
  task.end = task.piece.end;
  task.begin = max(task.piece.begin, task.context.first_key) / Shape::kTokens * Shape::kTokens;
  task.pages = max(0, (task.end - task.begin + Shape::kTokens - 1) / Shape::kTokens);
  return task;
}

template <typename T, typename Shape>
__device__ __forceinline__ T* page_keys(const AttentionWork& work, std::byte* ring, int stage) {
  return reinterpret_cast<T*>(ring) + stage * 2 * Shape::kTokens * work.head_dim;
}

/// Asks for tokens first..end - 1 of a page, numbered from the sequence's start.
template <typename Shape, typename T>
__device__ __forceinline__ void copy_page(const AttentionWork& work, const PageTask& task, int page, int first, int end,
                                          T* to, std::uint64_t* barrier) {
  const int base = task.begin + page * Shape::kTokens;
  first = max(first - base, 0);
  end = min(end - base, Shape::kTokens);
  if (first >= end) return;
  const std::int64_t block = task.context.blocks[base / kBlockTokens];
  const T* keys = reinterpret_cast<const T*>(work.cache + block * work.block_bytes + task.kv_head * work.head_bytes) +
                  (base % kBlockTokens + first) * work.head_dim;
  const int bytes = (end - first) * work.head_dim * static_cast<int>(sizeof(T));
  to += first * work.head_dim;
  copy_bytes(to, keys, bytes, barrier);
  copy_bytes(to + Shape::kTokens * work.head_dim, keys + kBlockTokens * work.head_dim, bytes, barrier);
}

template <typename Shape>
__device__ __forceinline__ int page_bytes(const AttentionWork& work, const PageTask& task, int page, int element) {
  return 2 * min(Shape::kTokens, task.end - task.begin - page * Shape::kTokens) * work.head_dim * element;
}

/// One warp's softmax over its tokens of all pages of the piece.
template <typename T, typename Shape>
struct PageWarp {
  static constexpr int kHeads = Shape::kHeads;
  static constexpr int kVectors = Shape::kVectors;
  float q[kHeads][kVectors][kVector];
  float sum[kHeads][kVector] = {};
  float largest[kHeads];
  float total[kHeads] = {};
  int lane = static_cast<int>(threadIdx.x) % kWarp;
  int warp = static_cast<int>(threadIdx.x) / kWarp;
  bool plain;

  __device__ void load_queries(const AttentionWork& work, int row, int first_head, int heads) {
    plain = work.soft_cap == 0 && work.slopes == nullptr;
    const float factor = plain ? work.scale * kLog2E : work.scale;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      largest[h] = -INFINITY;
      const float* from = work.q + (static_cast<std::int64_t>(row) * work.heads + first_head + h) * work.head_dim;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const int element = (v * 8 + lane % 8) * kVector;
        float4 a = {0, 0, 0, 0};
        float4 b = {0, 0, 0, 0};
        if (h < heads && element < work.head_dim) {
          a = load_fresh(reinterpret_cast<const float4*>(from + element));
          b = load_fresh(reinterpret_cast<const float4*>(from + element) + 1);
        }
        float(&to)[kVector] = q[h][v];
        to[0] = a.x * factor, to[1] = a.y * factor, to[2] = a.z * factor, to[3] = a.w * factor;
        to[4] = b.x * factor, to[5] = b.y * factor, to[6] = b.z * factor, to[7] = b.w * factor;
      }
    }
  }

  __device__ __forceinline__ static void widen_vector(const T* place, float (&out)[kVector]) {
    const uint4 v = *reinterpret_cast<const uint4*>(place);
    const std::uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = widen_word<T>(words[i]);
      out[2 * i] = pair.x;
      out[2 * i + 1] = pair.y;
    }
  }

  /// first: the position of the page's first token.
  __device__ __forceinline__ void take(const AttentionWork& work, const PageTask& task, const T* keys, int first,
                                       int first_head, int heads) {
    const int own = warp * 4 * kPagePasses + lane / 8;  // the lane's token of pass 0
    if (first + warp * 4 * kPagePasses >= task.end) return;
    const bool whole = first >= task.context.first_key && first + Shape::kTokens <= task.end;
    float score[kPagePasses][kHeads] = {};
#pragma unroll
    for (int pass = 0; pass < kPagePasses; ++pass) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const int element = (v * 8 + lane % 8) * kVector;
        if (element >= work.head_dim) continue;
        float k[kVector];
        widen_vector(keys + (own + pass * 4) * work.head_dim + element, k);
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
#pragma unroll
          for (int i = 0; i < kVector; ++i) score[pass][h] = fmaf(k[i], q[h][v][i], score[pass][h]);
        }
      }
    }
    bool seen[kPagePasses];
#pragma unroll
    for (int pass = 0; pass < kPagePasses; ++pass) {
      const int position = first + own + pass * 4;
      seen[pass] = whole || (position >= task.context.first_key && position < task.end);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        float& s = score[pass][h];
#pragma unroll
        for (int offset = 4; offset > 0; offset /= 2) s += __shfl_xor_sync(kAllLanes, s, offset);
        if (!plain) {
          s = capped(s, work.soft_cap);
          if (work.slopes != nullptr && h < heads) {
            s = fmaf(__ldg(work.slopes + first_head + h), static_cast<float>(position - task.context.tokens + 1), s);
          }
          s *= kLog2E;
        }
        if (!seen[pass]) s = -INFINITY;
      }
    }
    weigh(score);
    add_values(keys + Shape::kTokens * work.head_dim, work.head_dim, score, seen);
  }

  /// From scores to weights relative to the largest so far.
  __device__ __forceinline__ void weigh(float (&score)[kPagePasses][kHeads]) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      float most = largest[h];
#pragma unroll
      for (int pass = 0; pass < kPagePasses; ++pass) most = fmaxf(most, score[pass][h]);
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 8));
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 16));
      const float origin = most == -INFINITY ? 0.0F : most;  // nothing seen yet: all weights are zero
      const float rescale = exp2f(largest[h] - origin);
      largest[h] = most;
      total[h] *= rescale;
#pragma unroll
      for (int i = 0; i < kVector; ++i) sum[h][i] *= rescale;
#pragma unroll
      for (int pass = 0; pass < kPagePasses; ++pass) {
        score[pass][h] = exp2f(score[pass][h] - origin);
        total[h] += score[pass][h];
      }
    }
  }

  __device__ __forceinline__ void add_token(const T* value, bool seen, const float (&weight)[kHeads]) {
    float v[kVector];
    widen_vector(value, v);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (!seen) v[i] = 0;
#pragma unroll
      for (int h = 0; h < kHeads; ++h) sum[h][i] = fmaf(weight[h], v[i], sum[h][i]);
    }
  }

  __device__ __forceinline__ void add_values(const T* values, int head_dim, const float (&weight)[kPagePasses][kHeads],
                                             const bool (&seen)[kPagePasses]) {
    const int element = lane % (8 * kVectors) * kVector;
    const int own = warp * 4 * kPagePasses + lane / 8;
    // Heads of up to 64: eight lanes share a token. Longer ones: sixteen, which take their neighbours' token, too.
#pragma unroll
    for (int pass = 0; pass < kPagePasses; ++pass) {
      float others[kHeads];
      bool other_seen = false;
      if constexpr (kVectors == 2) {
#pragma unroll
        for (int h = 0; h < kHeads; ++h) others[h] = __shfl_xor_sync(kAllLanes, weight[pass][h], 8);
        other_seen = __shfl_xor_sync(kAllLanes, static_cast<int>(seen[pass]), 8) != 0;
      }
      if (element >= head_dim) continue;
      add_token(values + (own + pass * 4) * head_dim + element, seen[pass], weight[pass]);
      if constexpr (kVectors == 2) {
        add_token(values + ((own ^ 1) + pass * 4) * head_dim + element, other_seen, others);
      }
    }
  }

  __device__ __forceinline__ void leave(PageRoom<Shape>& room) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int offset = 8; offset < kWarp; offset *= 2) total[h] += __shfl_xor_sync(kAllLanes, total[h], offset);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
#pragma unroll
        for (int offset = 8 * kVectors; offset < kWarp; offset *= 2) {
          sum[h][i] += __shfl_xor_sync(kAllLanes, sum[h][i], offset);
        }
        if (lane < 8 * kVectors) room.values[warp][h][lane * kVector + i] = sum[h][i];
      }
      if (lane == 0) {
        room.largest[warp][h] = largest[h];
        room.sum[warp][h] = total[h];
      }
    }
  }
};

/// Largest scores, sums and values of several parts as one: part(i) gives {largest, sum, value}.
template <int kMost, typename Part>
__device__ __forceinline__ float3 added_up(int parts, const Part& part) {
  float3 all[kMost];
  float most = -INFINITY;
#pragma unroll
  for (int i = 0; i < kMost; ++i) {
    all[i] = i < parts ? part(i) : make_float3(-INFINITY, 0, 0);
    most = fmaxf(most, all[i].x);
  }
  const float origin = most == -INFINITY ? 0.0F : most;
  float3 result = {most, 0, 0};
#pragma unroll
  for (int i = 0; i < kMost; ++i) {
    const float factor = exp2f(all[i].x - origin);
    result.y = fmaf(all[i].y, factor, result.y);
    result.z = fmaf(all[i].z, factor, result.z);
  }
  return result;
}

/// Adds up the pieces of a row, in ascending order, where this block's was the last to be there.
template <typename Shape>
__device__ void merge_row(const AttentionWork& work, const AttentionRows& rows, const PageTask& task, int first_head,
                          int heads, PageRoom<Shape>& room) {
  const int thread = static_cast<int>(threadIdx.x);
  __threadfence();
  __syncthreads();
  if (thread == 0) {
    int* arrivals = rows.arrivals + task.piece.first_place * work.kv_heads + task.kv_head;
    room.is_last = atomicAdd(arrivals, 1) == task.piece.count - 1;
    if (room.is_last) *arrivals = 0;
  }
  __syncthreads();
  if (!room.is_last) return;
  __threadfence();
  for (int i = thread; i < heads * work.head_dim; i += Shape::kThreads) {
    const int head = first_head + i / work.head_dim;
    const int element = i % work.head_dim;
    const std::int64_t first = static_cast<std::int64_t>(task.piece.first_place) * work.heads + head;
    float most = -INFINITY;
    for (int piece = 0; piece < task.piece.count; ++piece) {
      most = fmaxf(most, __ldcg(rows.partial_sums + first + static_cast<std::int64_t>(piece) * work.heads).x);
    }
    float sum = 0;
    float value = 0;
    for (int piece = 0; piece < task.piece.count; ++piece) {
      const std::int64_t at = first + static_cast<std::int64_t>(piece) * work.heads;
      const float2 part = __ldcg(rows.partial_sums + at);
      const float factor = exp2f(part.x - most);
      sum = fmaf(part.y, factor, sum);
      value = fmaf(__ldcg(rows.partial_values + at * work.head_dim + element), factor, value);
    }
    store_operand(work.out_format, work.out,
                  (static_cast<std::int64_t>(task.piece.of.row) * work.heads + head) * work.head_dim + element,
                  value / sum);
  }
}

/// The blocks of a cluster add up the sums that lie in their rooms, a share of the elements each.
template <typename Shape>
__device__ void merge_cluster(const AttentionWork& work, const AttentionRows& rows, int row, int first_head, int count,
                              PageRoom<Shape>& room) {
  constexpr int kMostPieces = 8;
  const int share = (count + rows.partials - 1) / rows.partials;
  const int rank = static_cast<int>(blockIdx.z);
  cluster_barrier();
  for (int i = rank * share + static_cast<int>(threadIdx.x); i < min(count, (rank + 1) * share); i += Shape::kThreads) {
    const int head = i / work.head_dim;
    const int element = i % work.head_dim;
    const float3 all = added_up<kMostPieces>(rows.partials, [&](int piece) {
      return make_float3(load_from_block(&room.largest[0][head], piece), load_from_block(&room.sum[0][head], piece),
                         load_from_block(&room.values[0][head][element], piece));
    });
    store_operand(work.out_format, work.out,
                  (static_cast<std::int64_t>(row) * work.heads + first_head + head) * work.head_dim + element,
                  all.z / all.y);
  }
  cluster_barrier();  // nobody leaves while others read from it
}

/// Adds up the warps, and writes the result or the piece's part of it.
template <typename Shape>
__device__ void write_pages(const AttentionWork& work, const AttentionRows& rows, const PageTask& task, int first_head,
                            int heads, PageRoom<Shape>& room) {
  constexpr int kPlaces = (Shape::kHeads * Shape::kDims + Shape::kThreads - 1) / Shape::kThreads;
  const int count = heads * work.head_dim;
  const int thread = static_cast<int>(threadIdx.x);
  const int row = task.piece.of.row;
  const bool whole = rows.pieces != nullptr && task.piece.count == 1;
  // Of the element of a head: where its part of the row lies, by the place of the piece and by how they are laid out.
  const auto part_place = [&](int head) {
    const std::int64_t all_heads = work.heads;
    if (rows.pieces != nullptr) return task.piece.place * all_heads + first_head + head;
    return (static_cast<std::int64_t>(blockIdx.x) * all_heads + first_head + head) * rows.partials + blockIdx.z;
  };
  __syncthreads();
  float3 mine[kPlaces];
#pragma unroll
  for (int place = 0; place < kPlaces; ++place) {
    const int i = place * Shape::kThreads + thread;
    if (i >= count) break;
    const int head = i / work.head_dim;
    const int element = i % work.head_dim;
    mine[place] = added_up<Shape::kWarps>(Shape::kWarps, [&](int warp) {
      return make_float3(room.largest[warp][head], room.sum[warp][head], room.values[warp][head][element]);
    });
    if (whole) {
      store_operand(work.out_format, work.out,
                    (static_cast<std::int64_t>(row) * work.heads + first_head + head) * work.head_dim + element,
                    mine[place].z / mine[place].y);
    } else if (!rows.together) {
      const std::int64_t at = part_place(head);
      rows.partial_values[at * work.head_dim + element] = mine[place].z;
      const float unit = rows.pieces != nullptr ? 1.0F : kLn2;  // merge_pieces() takes natural logarithms
      if (element == 0) rows.partial_sums[at] = make_float2(mine[place].x * unit, mine[place].y);
    }
  }
  if (rows.pieces != nullptr && !whole) merge_row(work, rows, task, first_head, heads, room);
  if (!rows.together) return;
  __syncthreads();
#pragma unroll
  for (int place = 0; place < kPlaces; ++place) {
    const int i = place * Shape::kThreads + thread;
    if (i >= count) break;
    const int head = i / work.head_dim;
    const int element = i % work.head_dim;
    room.values[0][head][element] = mine[place].z;
    if (element == 0) {
      room.largest[0][head] = mine[place].x;
      room.sum[0][head] = mine[place].y;
    }
  }
  merge_cluster(work, rows, row, first_head, count, room);
}

/// Grid: (rows, KV heads, pieces), or (KV heads, pieces of the list).
template <typename T, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    attend_pages(const __grid_constant__ AttentionWork work, const __grid_constant__ AttentionRows rows) {
#if __CUDA_ARCH__ >= 900
  constexpr int kTokens = Shape::kTokens;
  const int stages = rows.stages;
  extern __shared__ __align__(128) std::byte ring[];
  auto& room =
      *reinterpret_cast<PageRoom<Shape>*>(ring + stages * 2 * kTokens * work.head_dim * static_cast<int>(sizeof(T)));
  const int thread = static_cast<int>(threadIdx.x);
  const PageTask task = find_task<Shape>(work, rows);
  if (task.piece.of.row < 0) {  // of a list there is always one that waits
    if (rows.pieces == nullptr) wait_for_previous();
    return;
  }
  const int group = work.heads / work.kv_heads;
  const auto keys_of = [&](int stage) { return page_keys<T, Shape>(work, ring, stage); };
  // A lane for each stage: their look-ups of the blocks run beside each other.
  const bool asks = thread < min(task.pages, stages);
  if (thread < stages) {
    barrier_init(room.full + thread, 1);
    barrier_init(room.empty + thread, Shape::kWarps);
    barrier_fence();
  }
  if (asks) {
    barrier_expect(room.full + thread, page_bytes<Shape>(work, task, thread, static_cast<int>(sizeof(T))));
    copy_page<Shape>(work, task, thread, 0, min(task.end, task.old_tokens), keys_of(thread), room.full + thread);
  }
  wait_for_previous();  // what came so far is the batch, and tokens that are in the cache for long
  let_next_start();
  if (asks) copy_page<Shape>(work, task, thread, task.old_tokens, task.end, keys_of(thread), room.full + thread);
  PageWarp<T, Shape> state;
  state.load_queries(work, task.piece.of.row, task.kv_head * group, group);
  __syncthreads();  // the barriers are there
  int stage = 0;
  int freed = 0;  // the stage of the page before
  unsigned phase = 0;
  unsigned freed_phase = 0;
  for (int page = 0; page < task.pages; ++page) {
    // All warps have left the stage of the page before by now, or soon will.
    const int next = page - 1 + stages;
    if (thread == 0 && page > 0 && next < task.pages) {
      barrier_wait(room.empty + freed, freed_phase);
      barrier_expect(room.full + freed, page_bytes<Shape>(work, task, next, static_cast<int>(sizeof(T))));
      copy_page<Shape>(work, task, next, 0, task.end, keys_of(freed), room.full + freed);
    }
    __syncwarp();
    barrier_wait(room.full + stage, phase);
    state.take(work, task, keys_of(stage), task.begin + page * kTokens, task.kv_head * group, group);
    __syncwarp();
    if (state.lane == 0) barrier_arrive(room.empty + stage);
    freed = stage;
    freed_phase = phase;
    if (++stage == stages) {
      stage = 0;
      phase ^= 1;
    }
  }
  state.leave(room);
  write_pages(work, rows, task, task.kv_head * group, group, room);
#endif
}

template <typename T, typename Shape>
constexpr std::size_t page_shared_bytes(std::int64_t stages, std::int64_t head_dim) {
  return static_cast<std::size_t>(stages * 2 * Shape::kTokens * head_dim) * sizeof(T) + sizeof(PageRoom<Shape>);
}

template <typename T, typename Shape>
cudaError_t launch_pages_in(const KernelContext& context, const AttentionWork& work, AttentionRows rows) {
  // Of short pieces no more than they need: the next kernel's first weights want room, too.
  const std::int64_t pages = rows.partials > 1 ? ceil_div(rows.piece_tokens, Shape::kTokens) : Shape::kStages;
  rows.stages = static_cast<std::int32_t>(std::min<std::int64_t>(Shape::kStages, pages));
  dim3 grid(static_cast<unsigned>(rows.decode_count), static_cast<unsigned>(work.kv_heads),
            static_cast<unsigned>(rows.partials));
  if (rows.pieces != nullptr)
    grid = dim3(static_cast<unsigned>(work.kv_heads), static_cast<unsigned>(rows.piece_count));
  return launch_clusters(context, attend_pages<T, Shape>, grid, Shape::kThreads,
                         page_shared_bytes<T, Shape>(rows.stages, work.head_dim),
                         rows.together ? dim3(1, 1, grid.z) : dim3(1), work, rows);
}

/// Few blocks have to be fast, each for itself; of many, four on a multiprocessor hide each other's start and end.
template <typename T, int kHeads, int kVectors>
cudaError_t launch_pages(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  const std::int64_t blocks = std::int64_t{rows.decode_count} * work.kv_heads * rows.partials;
  return blocks < 2LL * context.multiprocessors ? launch_pages_in<T, FewPages<kHeads, kVectors>>(context, work, rows)
                                                : launch_pages_in<T, ManyPages<kHeads, kVectors>>(context, work, rows);
}

template <typename T, int kVectors>
cudaError_t launch_pages_of_heads(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  const int group = work.heads / work.kv_heads;
  if (group == 1) return launch_pages<T, 1, kVectors>(context, work, rows);
  if (group == 2) return launch_pages<T, 2, kVectors>(context, work, rows);
  return launch_pages<T, 4, kVectors>(context, work, rows);
}

template <typename T>
cudaError_t launch_pages_of_type(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  return work.head_dim <= 64 ? launch_pages_of_heads<T, 1>(context, work, rows)
                             : launch_pages_of_heads<T, 2>(context, work, rows);
}

template <typename T, typename Shape>
cudaError_t prepare_pages_in() {
  static_assert(page_shared_bytes<T, Shape>(Shape::kStages, Shape::kDims) <= kPagesSharedBytes);
  return cudaFuncSetAttribute(attend_pages<T, Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(page_shared_bytes<T, Shape>(Shape::kStages, Shape::kDims)));
}

template <typename T, int kVectors>
cudaError_t prepare_pages_of_size() {
  LANNER_RETURN_IF_CUDA_ERROR((prepare_pages_in<T, FewPages<1, kVectors>>()));
  LANNER_RETURN_IF_CUDA_ERROR((prepare_pages_in<T, FewPages<2, kVectors>>()));
  LANNER_RETURN_IF_CUDA_ERROR((prepare_pages_in<T, FewPages<4, kVectors>>()));
  LANNER_RETURN_IF_CUDA_ERROR((prepare_pages_in<T, ManyPages<1, kVectors>>()));
  LANNER_RETURN_IF_CUDA_ERROR((prepare_pages_in<T, ManyPages<2, kVectors>>()));
  return prepare_pages_in<T, ManyPages<4, kVectors>>();
}

template <typename T>
cudaError_t prepare_pages_of_type() {
  LANNER_RETURN_IF_CUDA_ERROR((prepare_pages_of_size<T, 1>()));
  return prepare_pages_of_size<T, 2>();
}

}  // namespace lanner::ops::cuda
