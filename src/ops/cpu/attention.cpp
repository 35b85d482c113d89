// Attention over the paged cache, on the CPU.
//
// For each query the context is walked in chunks of 256 tokens: scores, softmax within the chunk, weighted values;
// then the chunk's (max, sum, values) is merged into the running state (online softmax, arXiv 1805.02867). The borders
// are fixed, and chunks merge in ascending order, whether one worker walks them all (prompts) or several take some
// each and the merge follows (decode): the bits are the same. Query heads that share a KV head, and neighbouring rows
// of a prompt, share the loads of keys and values.
//
// Prompts may go another way, by products of bf16: attention_prompt.cpp.
//
// With a window a query begins at the chunk in which its first visible key lies, and the keys before that one are
// masked there. Blocks that no query of a group sees are not read; that changes no bits, since masked keys weigh zero.

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "ops/check_arguments.h"
#include "ops/cpu/cpu_backend.h"

namespace lanner::ops::cpu {
namespace {

constexpr std::int64_t kMaxTaskQueries = 48;  // states of a task: they and a chunk's keys and values share the L2

/// Merges a chunk's state into a query's running one; `fresh` says that it is the first.
void merge_state(const Kernels& kernels, bool fresh, float& max, float& sum, float* values, float chunk_max,
                 float chunk_sum, const float* chunk_values, std::int64_t head_dim) {
  if (fresh) {
    max = chunk_max;
    sum = chunk_sum;
    std::copy_n(chunk_values, head_dim, values);
    return;
  }
  const float together = std::max(max, chunk_max);
  const float a = std::exp(max - together);
  const float b = std::exp(chunk_max - together);
  kernels.merge(values, a, chunk_values, b, head_dim);
  sum = sum * a + chunk_sum * b;
  max = together;
}

}  // namespace

void CpuBackend::write_normalized(const float* values, float sum, std::int64_t head_dim, float* out) {
  const float inverse = 1.0F / sum;
  for (std::int64_t d = 0; d < head_dim; ++d) out[d] = values[d] * inverse;
}

std::int64_t CpuBackend::query_place(const AttentionTask& task, const AttentionArgs& args, std::int64_t head_dim,
                                     std::int64_t query) {
  const std::int64_t row = task.slice->first_row + task.row + query / task.heads;
  return (row * args.heads + task.head + query % task.heads) * head_dim;
}

std::int64_t CpuBackend::first_key(const AttentionArgs& args, std::int64_t position) {
  return args.window == 0 ? 0 : std::max<std::int64_t>(0, position - args.window + 1);
}

std::int32_t CpuBackend::first_chunk(const AttentionArgs& args, std::int64_t position) {
  return static_cast<std::int32_t>(first_key(args, position) / kChunkTokens);
}

bool CpuBackend::same_queries(const AttentionTask& a, const AttentionTask& b) {
  return a.slice == b.slice && a.row == b.row && a.head == b.head;
}

void CpuBackend::plan_attention(const AttentionArgs& args, const Batch& batch, const KvLayout& layout) {
  const std::int64_t group = args.heads / layout.kv_heads;
  const std::int64_t enough = 4L * pool_->size();
  // Chunks of a context that would keep one worker busy for too long go out one by one, and query heads too where there
  // are few chunks in all.
  std::int64_t chunks = 0;
  for (const SequenceSlice& slice : batch.slices) {
    if (slice.rows > 1) continue;
    chunks += layout.kv_heads * (slice.first_position / kChunkTokens + 1 - first_chunk(args, slice.first_position));
  }
  const std::int64_t head_step = chunks < enough ? 1 : std::min<std::int64_t>(group, kMaxTaskQueries);
  const std::int64_t prompt_step = std::min<std::int64_t>(group, kMaxTaskQueries);
  const std::int64_t prompt_rows = rows_of_prompt_task(batch, layout, prompt_step, args.heads / prompt_step);
  prompt_queries_ = prompt_rows * prompt_step;
  attention_tasks_.clear();
  std::int64_t partials = 0;
  for (const SequenceSlice& slice : batch.slices) {
    const bool prompt = is_prompt(slice, layout);
    const std::int64_t step = slice.rows == 1 ? head_step : prompt_step;
    const auto row_step =
        static_cast<std::int32_t>(prompt ? prompt_rows : std::max<std::int64_t>(1, kMaxTaskQueries / step));
    for (std::int32_t row = 0; row < slice.rows; row += row_step) {
      const std::int32_t rows = std::min(row_step, slice.rows - row);
      const std::int64_t tokens = slice.first_position + row + rows;
      const std::int32_t start = first_chunk(args, slice.first_position + row);
      const auto end = static_cast<std::int32_t>((tokens + kChunkTokens - 1) / kChunkTokens);
      for (std::int64_t head = 0; head < args.heads;) {
        const std::int64_t heads = std::min(step, group - head % group);
        const bool split = slice.rows == 1 && end - start > 1 && (end - start) * enough > chunks;
        for (std::int32_t chunk = start; chunk < end; chunk = split ? chunk + 1 : end) {
          attention_tasks_.push_back({&slice, row, rows, static_cast<std::int32_t>(head),
                                      static_cast<std::int32_t>(heads), chunk, split ? chunk + 1 : end,
                                      split ? partials : -1, prompt});
          if (split) partials += heads * (2 + layout.head_dim);
        }
        head += heads;
      }
    }
  }
  if (static_cast<std::int64_t>(attention_partials_.size()) < partials) {
    attention_partials_.resize(static_cast<std::size_t>(partials));
  }
}

CpuBackend::ChunkHeads CpuBackend::heads_of_chunk(const AttentionTask& task, std::int64_t chunk,
                                                  const AttentionArgs& args, const KvCacheView& cache) {
  const std::int64_t kv_head = task.head / (args.heads / cache.layout.kv_heads);
  const std::int64_t chunk_start = chunk * kChunkTokens;
  const SequenceSlice& slice = *task.slice;
  ChunkHeads chunk_heads = {};
  const std::int64_t last = slice.first_position + task.row + task.rows;  // tokens that the last row sees
  for (std::int64_t t = chunk_start; t < std::min(last, chunk_start + kChunkTokens); t += kKvBlockTokens) {
    chunk_heads.heads[(t - chunk_start) / kKvBlockTokens] =
        cache.head(slice.blocks[static_cast<std::size_t>(t / kKvBlockTokens)], args.layer, kv_head);
  }
  return chunk_heads;
}

void CpuBackend::attend_chunk(const ChunkWork& work, float* scratch, const AttentionState& state) const {
  const AttentionTask& task = work.task;
  const AttentionArgs& args = work.args;
  const SequenceSlice& slice = *task.slice;
  const std::int64_t chunk = work.chunk;
  const std::int64_t chunk_start = chunk * kChunkTokens;
  // Queries in row order; a row that ends before this chunk, or whose window begins behind it, has no part in it.
  std::int64_t first = 0;
  std::int64_t end = static_cast<std::int64_t>(task.rows) * task.heads;
  while (first < end && slice.first_position + task.row + first / task.heads + 1 <= chunk_start) ++first;
  while (first < end && first_chunk(args, slice.first_position + task.row + (end - 1) / task.heads) > chunk) --end;
  for (; first < end; first += kernels_.score_queries) {
    attend_queries(work, first, std::min(kernels_.score_queries, end - first), scratch, state);
  }
}

void CpuBackend::attend_queries(const ChunkWork& work, std::int64_t first, std::int64_t count, float* scratch,
                                const AttentionState& state) const {
  const AttentionTask& task = work.task;
  const AttentionArgs& args = work.args;
  const std::int64_t head_dim = work.layout.head_dim;
  const std::int64_t chunk_start = work.chunk * kChunkTokens;
  float* scores = scratch;                                               // (score_queries, 256)
  float* chunk_values = scores + kernels_.score_queries * kChunkTokens;  // (score_queries, head_dim)
  struct Query {
    std::int64_t position;
    std::int64_t begin, end;  // the tokens of the chunk that it sees
  };
  Query queries[kMaxScoreQueries] = {};
  const float* q[kMaxScoreQueries] = {};
  float* out[kMaxScoreQueries] = {};
  std::int64_t tokens = 0;
  std::int64_t unseen = kChunkTokens;  // tokens in whole blocks that all of these queries' windows have left behind
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t row = task.row + (first + n) / task.heads;
    const std::int64_t head = task.head + (first + n) % task.heads;
    q[n] = args.q + ((task.slice->first_row + row) * args.heads + head) * head_dim;
    out[n] = chunk_values + n * head_dim;
    Query& query = queries[n];
    query.position = task.slice->first_position + row;
    query.begin = std::max<std::int64_t>(0, first_key(args, query.position) - chunk_start);
    query.end = std::min(query.position + 1 - chunk_start, kChunkTokens);
    tokens = std::max(tokens, query.end);
    unseen = std::min(unseen, query.begin / kKvBlockTokens * kKvBlockTokens);
  }
  tokens -= unseen;
  const std::byte* const* heads = work.heads + unseen / kKvBlockTokens;
  kernels_.scores(work.layout, heads, tokens, q, count, args.scale, scores);
  float max[kMaxScoreQueries];
  float sum[kMaxScoreQueries];
  for (std::int64_t n = 0; n < count; ++n) {
    const Query& query = queries[n];
    float* own = scores + n * kChunkTokens;
    if (args.soft_cap != 0) kernels_.soft_cap(own, tokens, args.soft_cap);
    if (args.alibi_slopes != nullptr) {
      const float slope = args.alibi_slopes->data()[task.head + (first + n) % task.heads];
      kernels_.add_slope(own, tokens, slope, chunk_start + unseen - query.position);
    }
    kernels_.softmax(own, query.begin - unseen, query.end - unseen, tokens, &max[n], &sum[n]);
  }
  // The chunk's first queries ask for the next chunk, for all of them.
  const std::byte* const none[kChunkTokens / kKvBlockTokens] = {};
  kernels_.values(work.layout, heads, first < kernels_.score_queries ? work.next : none, tokens, scores, count, out);
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t query = first + n;
    const bool fresh = work.chunk == std::max(task.first_chunk, first_chunk(args, queries[n].position));
    merge_state(kernels_, fresh, state.max[query], state.sum[query], state.values + query * head_dim, max[n], sum[n],
                out[n], head_dim);
  }
}

void CpuBackend::attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) {
  check_attention(args, batch, cache);
  const std::int64_t head_dim = cache.layout.head_dim;
  LANNER_CHECK(cache.layout.codes == KvCodes::kNone || head_dim <= kMaxCodedHead);
  plan_attention(args, batch, cache.layout);
  const std::int64_t state_floats = kMaxTaskQueries * (2 + head_dim);
  const std::int64_t scratch_floats = kernels_.score_queries * (kChunkTokens + head_dim);
  const std::int64_t floats = std::max(state_floats + scratch_floats, prompt_scratch_floats(head_dim));
  for (std::vector<float>& scratch : attention_scratch_) {
    if (static_cast<std::int64_t>(scratch.size()) < floats) scratch.resize(static_cast<std::size_t>(floats));
  }
  const auto state_at = [&](float* place, std::int64_t queries) {
    return AttentionState{.max = place, .sum = place + queries, .values = place + 2 * queries};
  };
  const auto out_row = [&](const AttentionTask& task, std::int64_t query) {
    return args.out + query_place(task, args, head_dim, query);
  };
  std::atomic<std::size_t> taken{0};
  const auto take = [&]() -> const AttentionTask* {  // a prompt's last rows, the longest task, first
    const std::size_t count = attention_tasks_.size();
    const std::size_t turn = taken.fetch_add(1);
    return turn < count ? &attention_tasks_[count - 1 - turn] : nullptr;
  };
  pool_->run([&](Worker& worker) {
    float* own = attention_scratch_[static_cast<std::size_t>(worker.index())].data();
    const AttentionTask* next = nullptr;
    for (const AttentionTask* now = take(); now != nullptr; now = next) {
      const AttentionTask& task = *now;
      if (task.prompt) {
        attend_prompt(task, args, cache, own);
        next = take();
        continue;
      }
      const std::int64_t queries = static_cast<std::int64_t>(task.rows) * task.heads;
      float* place = task.partial < 0 ? own + scratch_floats : attention_partials_.data() + task.partial;
      const AttentionState state = state_at(place, queries);
      ChunkHeads heads = heads_of_chunk(task, task.first_chunk, args, cache);
      for (std::int64_t chunk = task.first_chunk; chunk < task.end_chunk; ++chunk) {
        ChunkHeads then = {};
        if (chunk + 1 < task.end_chunk) {
          then = heads_of_chunk(task, chunk + 1, args, cache);
        } else {  // the next task is taken before the last chunk, so as to ask for its keys meanwhile
          next = take();
          if (next != nullptr && !next->prompt) then = heads_of_chunk(*next, next->first_chunk, args, cache);
        }
        attend_chunk({.task = task,
                      .args = args,
                      .layout = cache.layout,
                      .chunk = chunk,
                      .heads = heads.heads,
                      .next = then.heads},
                     own, state);
        heads = then;
      }
      if (task.partial >= 0) continue;
      for (std::int64_t n = 0; n < queries; ++n) {
        write_normalized(state.values + n * head_dim, state.sum[n], head_dim, out_row(task, n));
      }
    }
  });
  // The tasks of one query's chunks follow each other in ascending order.
  for (std::size_t i = 0; i < attention_tasks_.size();) {
    const AttentionTask& task = attention_tasks_[i];
    std::size_t end = i + 1;
    if (task.partial >= 0) {
      const AttentionState total = state_at(attention_partials_.data() + task.partial, task.heads);
      for (; end < attention_tasks_.size() && same_queries(attention_tasks_[end], task); ++end) {
        const AttentionState chunk = state_at(attention_partials_.data() + attention_tasks_[end].partial, task.heads);
        for (std::int64_t n = 0; n < task.heads; ++n) {
          merge_state(kernels_, false, total.max[n], total.sum[n], total.values + n * head_dim, chunk.max[n],
                      chunk.sum[n], chunk.values + n * head_dim, head_dim);
        }
      }
      for (std::int64_t n = 0; n < task.heads; ++n) {
        write_normalized(total.values + n * head_dim, total.sum[n], head_dim, out_row(task, n));
      }
    }
    i = end;
  }
}

}  // namespace lanner::ops::cpu
