// Attention of prompts by products of bf16: prompt.h has them.
//
// A task is many rows of a prompt with all query heads of a KV head. It walks the context in chunks of 256 tokens: the
// chunk's keys and values are rounded and put in order once for all of its queries, of which 32 at a time then
// multiply them. The running maximum is raised chunk by chunk (online softmax, arXiv 1805.02867).

#include <algorithm>
#include <limits>

#include "ops/cpu/cpu_backend.h"

namespace lanner::ops::cpu {
namespace {

constexpr std::int64_t kMostQueries = 384;                // of a task: they share one rounding of keys and values
constexpr std::int64_t kLeastQueries = 96;                // where there are too few tasks for all workers
constexpr std::int64_t kScoreStride = kChunkTokens + 16;  // so that rows do not all want the same places in the cache
constexpr std::int64_t kWeightStride = kChunkTokens + 32;

std::int64_t in_blocks(std::int64_t queries) { return (queries + kPromptRows - 1) / kPromptRows * kPromptRows; }

/// Hands out pieces of scratch, each on a cache line of its own; with a null pointer it only counts.
class Pieces {
 public:
  explicit Pieces(float* scratch) : start_(scratch) {
    if (scratch == nullptr) return;
    const std::uintptr_t past_line = reinterpret_cast<std::uintptr_t>(scratch) % kLine;
    floats_ = past_line == 0 ? 0 : static_cast<std::int64_t>((kLine - past_line) / sizeof(float));
  }
  template <typename T>
  T* take(std::int64_t count) {
    auto* piece = start_ == nullptr ? nullptr : reinterpret_cast<T*>(start_ + floats_);
    constexpr auto kLineBytes = static_cast<std::int64_t>(kLine);
    const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(T));
    floats_ += (bytes + kLineBytes - 1) / kLineBytes * (kLineBytes / static_cast<std::int64_t>(sizeof(float)));
    return piece;
  }
  /// Those taken, and what reaching a cache line may cost.
  std::int64_t floats() const { return floats_ + static_cast<std::int64_t>(kLine / sizeof(float)); }

 private:
  static constexpr std::size_t kLine = 64;
  float* start_;
  std::int64_t floats_ = 0;
};

}  // namespace

/// A worker's scratch for a task.
struct CpuBackend::PromptRoom {
  std::uint16_t* queries;  // (queries, prompt_depth(head_dim))
  PromptState* states;     // (queries)
  float* values;           // (queries, head_dim): theirs
  std::uint16_t* keys;     // of the chunk, in tiles
  std::uint16_t* chunk_values;
  float* scores;           // (32, kScoreStride)
  std::uint16_t* weights;  // (32, kWeightStride)

  PromptRoom(Pieces& pieces, std::int64_t count, std::int64_t head_dim)
      : queries(pieces.take<std::uint16_t>(count * prompt_depth(head_dim))),
        states(pieces.take<PromptState>(count)),
        values(pieces.take<float>(count * head_dim)),
        keys(pieces.take<std::uint16_t>(kChunkTokens * prompt_depth(head_dim))),
        chunk_values(pieces.take<std::uint16_t>(kChunkTokens * head_dim)),
        scores(pieces.take<float>(kPromptRows * kScoreStride)),
        weights(pieces.take<std::uint16_t>(kPromptRows * kWeightStride)) {}
};

bool CpuBackend::is_prompt(const SequenceSlice& slice, const KvLayout& layout) const {
  return prompt_ != nullptr && layout.dtype != DType::kF32 && slice.rows >= kLeastPromptRows;
}

std::int64_t CpuBackend::rows_of_prompt_task(const Batch& batch, const KvLayout& layout, std::int64_t heads,
                                             std::int64_t head_tasks) const {
  std::int64_t longest = 0;
  for (const SequenceSlice& slice : batch.slices) {
    if (is_prompt(slice, layout)) longest = std::max<std::int64_t>(longest, slice.rows);
  }
  if (longest == 0) return 0;
  const auto tasks = [&](std::int64_t rows) {
    std::int64_t total = 0;
    for (const SequenceSlice& slice : batch.slices) {
      if (is_prompt(slice, layout)) total += head_tasks * ((slice.rows + rows - 1) / rows);
    }
    return total;
  };
  std::int64_t rows = std::max<std::int64_t>(1, kMostQueries / heads);
  while (rows * heads >= 2 * kLeastQueries && tasks(rows) < 4L * pool_->size()) rows /= 2;
  return std::min(rows, longest);
}

std::int64_t CpuBackend::prompt_scratch_floats(std::int64_t head_dim) const {
  if (prompt_queries_ == 0) return 0;
  Pieces pieces(nullptr);
  const PromptRoom counted(pieces, in_blocks(prompt_queries_), head_dim);
  return pieces.floats();
}

void CpuBackend::attend_prompt(const AttentionTask& task, const AttentionArgs& args, const KvCacheView& cache,
                               float* scratch) const {
  const KvLayout& layout = cache.layout;
  const std::int64_t head_dim = layout.head_dim;
  const std::int64_t count = static_cast<std::int64_t>(task.rows) * task.heads;
  const SequenceSlice& slice = *task.slice;
  Pieces pieces(scratch);
  const PromptRoom room(pieces, in_blocks(count), head_dim);
  const auto place = [&](std::int64_t query) { return query_place(task, args, head_dim, query); };
  prompt_->configure();
  std::fill_n(room.values, count * head_dim, 0.0F);
  for (std::int64_t n = 0; n < count; ++n) {
    prompt_->round_query(args.q + place(n), args.scale, head_dim, room.queries + n * prompt_depth(head_dim));
    room.states[n] = {.max = -std::numeric_limits<float>::infinity(), .sum = 0, .values = room.values + n * head_dim};
  }
  const std::int64_t last = slice.first_position + task.row + task.rows;  // tokens that the last row sees
  for (std::int64_t chunk = task.first_chunk; chunk < task.end_chunk; ++chunk) {
    const ChunkHeads blocks = heads_of_chunk(task, chunk, args, cache);
    const std::int64_t tokens = std::min(last - chunk * kChunkTokens, kChunkTokens);
    prompt_->arrange_keys(layout, blocks.heads, tokens, room.keys);
    prompt_->arrange_values(layout, blocks.heads, tokens, room.chunk_values);
    const ChunkWork work{
        .task = task, .args = args, .layout = layout, .chunk = chunk, .heads = blocks.heads, .next = nullptr};
    for (std::int64_t first = 0; first < count; first += kPromptRows) {
      attend_prompt_rows(work, first, std::min(kPromptRows, count - first), room);
    }
  }
  for (std::int64_t n = 0; n < count; ++n) {
    write_normalized(room.states[n].values, room.states[n].sum, head_dim, args.out + place(n));
  }
}

void CpuBackend::attend_prompt_rows(const ChunkWork& work, std::int64_t first, std::int64_t count,
                                    const PromptRoom& room) const {
  const AttentionTask& task = work.task;
  const AttentionArgs& args = work.args;
  const std::int64_t head_dim = work.layout.head_dim;
  const std::int64_t depth = prompt_depth(head_dim);
  const std::int64_t chunk_start = work.chunk * kChunkTokens;
  const auto position = [&](std::int64_t query) {
    return static_cast<std::int64_t>(task.slice->first_position) + task.row + query / task.heads;
  };
  // The tokens of the chunk that any of them sees, in whole steps of depth; products leave out the others.
  const std::int64_t begin =
      std::max<std::int64_t>(0, first_key(args, position(first)) - chunk_start) / kPromptDepth * kPromptDepth;
  const std::int64_t end = std::min(position(first + count - 1) + 1 - chunk_start, kChunkTokens);
  if (begin >= end) return;
  const std::int64_t tokens = prompt_depth(end) - begin;
  const std::int64_t rows = (count + 15) / 16 * 16;
  prompt_->multiply({.a = room.queries + first * depth,
                     .a_stride = depth,
                     .b = room.keys + begin * depth,
                     .b_stride = 16 * depth,
                     .c = room.scores,
                     .c_stride = kScoreStride,
                     .rows = rows,
                     .columns = tokens,
                     .depth = depth});
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t at = position(first + n);
    float* scores = room.scores + n * kScoreStride;
    if (args.soft_cap != 0) kernels_.soft_cap(scores, tokens, args.soft_cap);
    if (args.alibi_slopes != nullptr) {
      const float slope = args.alibi_slopes->data()[task.head + (first + n) % task.heads];
      kernels_.add_slope(scores, tokens, slope, chunk_start + begin - at);
    }
    const std::int64_t own_first = std::max<std::int64_t>(0, first_key(args, at) - chunk_start - begin);
    const std::int64_t own_end = std::min(at + 1 - chunk_start, kChunkTokens) - begin;
    prompt_->weigh(scores, own_first, own_end, tokens, head_dim, &room.states[first + n],
                   room.weights + n * kWeightStride);
  }
  prompt_->multiply({.a = room.weights,
                     .a_stride = kWeightStride,
                     .b = room.chunk_values + begin * 16,
                     .b_stride = kChunkTokens * 16,
                     .c = room.values + first * head_dim,
                     .c_stride = head_dim,
                     .rows = rows,
                     .columns = head_dim,
                     .depth = tokens,
                     .add = true});
}

}  // namespace lanner::ops::cpu
