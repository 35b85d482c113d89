#pragma once
// Attention of single query rows over caches in 16 bits, or in codes (attention_code_pages.cuh), on Hopper: decode with
// up to eight query heads of a KV head.
//
// Bound: the bytes of keys and values, read once for all query heads of a KV head.
//
// A block takes one row, one KV head and one piece of the context, and copies it page by page, keys and values in one
// piece each, through a ring of stages (bulk copies). What the previous kernel does not write is asked for before that
// has ended: all tokens but those of this very step. Each of four warps takes 16 of a page's 64 tokens (page_warp.cuh),
// with a softmax of its own (arXiv 1805.02867), so that they meet only at the end.
// At the end the warps' parts, then those of the pieces, are added up in ascending order: few rows are cut for all
// multiprocessors, and the blocks of a cluster do it, or merge_pieces() where there are more; many rows are cut only
// where some are much longer than others (decode_pieces.h), and the last block of a row does it. Tokens that the query
// does not see are not used: what lies there may be anything.

#include <algorithm>

#include "ops/cuda/page_warp.cuh"
#include "ops/cuda/warpgroup.cuh"

namespace lanner::ops::cuda {

inline constexpr float kLn2 = 0.6931472F;
inline constexpr int kSpreadBytes = 112 * 1024;  // of shared memory; see page_bytes_asked()

/// kIsWhole: heads have as many elements as there is room for.
template <int kHeadCount, int kVectorCount, bool kIsWhole>
struct PageShape {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kStages = 3;
  static constexpr int kTokens = kWarpTokens * kWarps;  // of a page
  static constexpr int kHeads = kHeadCount;
  static constexpr int kVectors = kVectorCount;
  static constexpr bool kWhole = kIsWhole;
  static constexpr int kDims = 64 * kVectors;
  static constexpr int kBlocks = 4;  // on a multiprocessor; 128 registers a thread
  static_assert(kBlockTokens % kTokens == 0);
};

template <typename Shape>
struct PageRoom {
  float values[Shape::kWarps][Shape::kHeads][Shape::kDims];  // in the end those of the first warp are those of all
  float largest[Shape::kWarps][Shape::kHeads];               // score, or nearly, times log2(e)
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

/// Of a page's tokens those with numbers first..end - 1 from the sequence's start, from the page's own start. count()
/// <= 0: none.
struct PageTokens {
  int base;  // the page's first
  int first;
  int end;
  __device__ __forceinline__ int count() const { return end - first; }
};

template <typename Shape>
__device__ __forceinline__ PageTokens page_tokens(const PageTask& task, int page, int first, int end) {
  const int base = task.begin + page * Shape::kTokens;
  return {base, max(first - base, 0), min(end - base, Shape::kTokens)};
}

__device__ __forceinline__ const std::byte* block_head(const AttentionWork& work, const PageTask& task, int position) {
  const std::int64_t block = task.context.blocks[position / kBlockTokens];
  return work.cache + block * work.block_bytes + task.kv_head * work.head_bytes;
}

/// Pages of numbers in 16 bits: keys, then values, (kTokens, head_dim) each.
template <typename T, typename PageShape>
struct HalfPages {
  using Shape = PageShape;
  using Warp = PageWarp<T, Shape::kVectors, Shape::kWhole>;

  static __host__ __device__ constexpr int stage_bytes(int head_dim) {
    return 2 * Shape::kTokens * head_dim * static_cast<int>(sizeof(T));
  }
  /// What copies of `tokens` tokens bring.
  static __device__ __forceinline__ int copied_bytes(int head_dim, int tokens) {
    return 2 * tokens * head_dim * static_cast<int>(sizeof(T));
  }
  /// Asks for tokens first..end - 1 of a page, numbered from the sequence's start.
  static __device__ __forceinline__ void copy(const AttentionWork& work, const PageTask& task, int page, int first,
                                              int end, std::byte* stage, std::uint64_t* barrier) {
    const PageTokens tokens = page_tokens<Shape>(task, page, first, end);
    if (tokens.count() <= 0) return;
    const T* keys = reinterpret_cast<const T*>(block_head(work, task, tokens.base)) +
                    (tokens.base % kBlockTokens + tokens.first) * work.head_dim;
    const int bytes = tokens.count() * work.head_dim * static_cast<int>(sizeof(T));
    T* to = reinterpret_cast<T*>(stage) + tokens.first * work.head_dim;
    copy_bytes(to, keys, bytes, barrier);
    copy_bytes(to + Shape::kTokens * work.head_dim, keys + kBlockTokens * work.head_dim, bytes, barrier);
  }
  /// tile: of the tokens from own_token of the page on.
  static __device__ __forceinline__ void take(Warp& state, const AttentionWork& work, const TileContext& tile,
                                              std::byte* stage, int own_token, int first_head, int heads) {
    T* keys = reinterpret_cast<T*>(stage) + own_token * state.head_dim();
    state.take(work, tile, keys, keys + Shape::kTokens * state.head_dim(), first_head, heads);
  }
  /// Stages of pieces of a list: two, so that three blocks on a multiprocessor hide each other's start and end; three
  /// where there are not so many blocks, or where they end with their third page.
  static std::int32_t stages_of_list(bool few_and_short) { return few_and_short ? 3 : 2; }
};

/// Leaves a warp's part of the result in its place of the room.
template <typename Warp, typename Shape>
__device__ __forceinline__ void leave(Warp& state, PageRoom<Shape>& room) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  state.finish();
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int head = 2 * state.column + h;
    if (head >= Shape::kHeads) continue;
#pragma unroll
    for (int tile = 0; tile < state.kTiles; ++tile) {
      room.values[warp][head][state.element_of(tile, false)] = state.sum[tile][h];
      room.values[warp][head][state.element_of(tile, true)] = state.sum[tile][h + 2];
    }
    if (state.row == 0) {
      room.largest[warp][head] = state.origin[h];
      room.sum[warp][head] = state.total[h];
    }
  }
}

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
template <typename Pages>
__global__ void __launch_bounds__(Pages::Shape::kThreads, Pages::Shape::kBlocks)
    attend_pages(const __grid_constant__ AttentionWork work, const __grid_constant__ AttentionRows rows) {
#if __CUDA_ARCH__ >= 900
  using Shape = typename Pages::Shape;
  constexpr int kTokens = Shape::kTokens;
  const int stages = rows.stages;
  const int stage_bytes = Pages::stage_bytes(work.head_dim);
  extern __shared__ __align__(128) std::byte ring[];
  auto& room = *reinterpret_cast<PageRoom<Shape>*>(ring + stages * stage_bytes);
  const int thread = static_cast<int>(threadIdx.x);
  const PageTask task = find_task<Shape>(work, rows);
  if (task.piece.of.row < 0) {  // of a list there is always one that waits
    if (rows.pieces == nullptr) wait_for_previous();
    return;
  }
  const int group = work.heads / work.kv_heads;
  const auto stage_at = [&](int stage) { return ring + stage * stage_bytes; };
  const auto expect = [&](int page, std::uint64_t* barrier) {
    const int tokens = min(kTokens, task.end - task.begin - page * kTokens);
    barrier_expect(barrier, Pages::copied_bytes(work.head_dim, tokens));
  };
  // A lane for each stage: their look-ups of the blocks run beside each other.
  const bool asks = thread < min(task.pages, stages);
  if (thread == 0) {
#pragma unroll
    for (int i = 0; i < Shape::kStages; ++i) {
      barrier_init(room.full + i, 1);
      barrier_init(room.empty + i, Shape::kThreads);
    }
    barrier_fence();
  }
  __syncwarp();
  if (asks) {
    expect(thread, room.full + thread);
    Pages::copy(work, task, thread, 0, min(task.end, task.old_tokens), stage_at(thread), room.full + thread);
  }
  let_next_start();     // which waits all the same
  wait_for_previous();  // what came so far is the batch, and tokens that are in the cache for long
  if (asks) Pages::copy(work, task, thread, task.old_tokens, task.end, stage_at(thread), room.full + thread);
  typename Pages::Warp state;
  const int own_token = thread / kWarp * kWarpTokens;
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
      expect(next, room.full + freed);
      Pages::copy(work, task, next, 0, task.end, stage_at(freed), room.full + freed);
    }
    __syncwarp();
    barrier_wait(room.full + stage, phase);
    const TileContext tile = {task.begin + page * kTokens + own_token, task.context.first_key, task.end,
                              task.context.tokens};
    if (tile.first < task.end) {
      Pages::take(state, work, tile, stage_at(stage), own_token, task.kv_head * group, group);
    }
    barrier_arrive(room.empty + stage);
    freed = stage;
    freed_phase = phase;
    if (++stage == stages) {
      stage = 0;
      phase ^= 1;
    }
  }
  leave(state, room);
  write_pages(work, rows, task, task.kv_head * group, group, room);
#endif
}

template <typename Pages>
constexpr std::size_t page_shared_bytes(int stages, int head_dim) {
  return static_cast<std::size_t>(stages * Pages::stage_bytes(head_dim)) + sizeof(PageRoom<typename Pages::Shape>);
}

/// Of short pieces no more than they need: the next kernel's first weights want room, too.
template <typename Pages>
std::int32_t page_stages(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  constexpr int kTokens = Pages::Shape::kTokens;
  if (rows.pieces != nullptr) {
    const bool few = std::int64_t{rows.decode_count} * work.kv_heads <= 2LL * context.multiprocessors;
    return Pages::stages_of_list(few && rows.max_context <= 4 * kTokens);
  }
  return static_cast<std::int32_t>(std::min<std::int64_t>(Pages::Shape::kStages, ceil_div(rows.piece_tokens, kTokens)));
}

/// Of few rows, whose blocks do not take all multiprocessors, a block asks for half of one, whatever it needs: else
/// those of the next kernel, one for each multiprocessor, would crowd where there is none of these. (NVIDIA H200, one
/// row of 192 tokens: 22 us of a step of 1,093.)
template <typename Pages>
std::size_t page_bytes_asked(const AttentionWork& work, const AttentionRows& rows) {
  const std::size_t needed = page_shared_bytes<Pages>(rows.stages, work.head_dim);
  return rows.pieces == nullptr ? std::max<std::size_t>(needed, kSpreadBytes) : needed;
}

template <typename Pages>
cudaError_t launch_pages_in(const KernelContext& context, const AttentionWork& work, AttentionRows rows) {
  rows.stages = page_stages<Pages>(context, work, rows);
  dim3 grid(static_cast<unsigned>(rows.decode_count), static_cast<unsigned>(work.kv_heads),
            static_cast<unsigned>(rows.partials));
  if (rows.pieces != nullptr)
    grid = dim3(static_cast<unsigned>(work.kv_heads), static_cast<unsigned>(rows.piece_count));
  return launch_clusters(context, attend_pages<Pages>, grid, Pages::Shape::kThreads,
                         page_bytes_asked<Pages>(work, rows), rows.together ? dim3(1, 1, grid.z) : dim3(1), work, rows);
}

template <template <typename> typename Pages, int kHeads, int kVectors>
cudaError_t launch_pages(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  return work.head_dim == 64 * kVectors
             ? launch_pages_in<Pages<PageShape<kHeads, kVectors, true>>>(context, work, rows)
             : launch_pages_in<Pages<PageShape<kHeads, kVectors, false>>>(context, work, rows);
}

template <template <typename> typename Pages, int kVectors>
cudaError_t launch_pages_of_heads(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  return work.heads / work.kv_heads <= 2 ? launch_pages<Pages, 2, kVectors>(context, work, rows)
                                         : launch_pages<Pages, kProductHeads, kVectors>(context, work, rows);
}

/// Pages: HalfPages of a type, or CodePages (attention_code_pages.cuh), by the shape.
template <template <typename> typename Pages>
cudaError_t launch_pages_of(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  return work.head_dim <= 64 ? launch_pages_of_heads<Pages, 1>(context, work, rows)
                             : launch_pages_of_heads<Pages, 2>(context, work, rows);
}

template <typename Pages>
cudaError_t prepare_pages_in() {
  static_assert(page_shared_bytes<Pages>(Pages::Shape::kStages, Pages::Shape::kDims) <= kPagesSharedBytes &&
                kSpreadBytes <= kPagesSharedBytes);
  return cudaFuncSetAttribute(attend_pages<Pages>, cudaFuncAttributeMaxDynamicSharedMemorySize, kPagesSharedBytes);
}

template <template <typename> typename Pages, int kVectors>
cudaError_t prepare_pages_of_size() {
  LANNER_RETURN_IF_CUDA_ERROR((prepare_pages_in<Pages<PageShape<2, kVectors, false>>>()));
  LANNER_RETURN_IF_CUDA_ERROR((prepare_pages_in<Pages<PageShape<2, kVectors, true>>>()));
  LANNER_RETURN_IF_CUDA_ERROR((prepare_pages_in<Pages<PageShape<kProductHeads, kVectors, false>>>()));
  return prepare_pages_in<Pages<PageShape<kProductHeads, kVectors, true>>>();
}

template <template <typename> typename Pages>
cudaError_t prepare_pages_of() {
  LANNER_RETURN_IF_CUDA_ERROR((prepare_pages_of_size<Pages, 1>()));
  return prepare_pages_of_size<Pages, 2>();
}

}  // namespace lanner::ops::cuda
