// Attention over the paged cache, on the CPU.
//
// For each query the context is walked in chunks of 256 tokens: scores, softmax within the chunk, weighted values;
// then the chunk's (max, sum, values) is merged into the running state (online softmax, arXiv 1805.02867). The borders
// are fixed, and chunks merge in ascending order, whether one worker walks them all (prompts) or several take some
// each and the merge follows (decode): the bits are the same. Query heads that share a KV head, and neighbouring rows
// of a prompt, share the loads of keys and values.

#include <algorithm>
#include <cmath>

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

void write_normalized(const float* values, float sum, std::int64_t head_dim, float* out) {
  const float inverse = 1.0F / sum;
  for (std::int64_t d = 0; d < head_dim; ++d) out[d] = values[d] * inverse;
}

}  // namespace

void CpuBackend::plan_attention(const AttentionArgs& args, const Batch& batch, const KvLayout& layout) {
  const std::int64_t group = args.heads / layout.kv_heads;
  const std::int64_t enough = 4L * pool_->size();
  std::int64_t decode_tasks = static_cast<std::int64_t>(batch.slices.size()) * layout.kv_heads;
  // Few sequences: hand out query heads one by one, and chunks too when the context is long.
  const std::int64_t head_step = decode_tasks < enough ? 1 : std::min<std::int64_t>(group, kMaxTaskQueries);
  decode_tasks = decode_tasks * group / head_step;
  const bool split_chunks = decode_tasks < enough;
  attention_tasks_.clear();
  std::int64_t partials = 0;
  for (const SequenceSlice& slice : batch.slices) {
    const std::int64_t step = slice.rows == 1 ? head_step : std::min<std::int64_t>(group, kMaxTaskQueries);
    const auto row_step = static_cast<std::int32_t>(std::max<std::int64_t>(1, kMaxTaskQueries / step));
    for (std::int32_t row = 0; row < slice.rows; row += row_step) {
      const std::int32_t rows = std::min(row_step, slice.rows - row);
      const std::int64_t tokens = slice.first_position + row + rows;
      const auto chunks = static_cast<std::int32_t>((tokens + kChunkTokens - 1) / kChunkTokens);
      for (std::int64_t head = 0; head < args.heads;) {
        const std::int64_t heads = std::min(step, group - head % group);
        const bool split = split_chunks && slice.rows == 1 && chunks > 1;
        for (std::int32_t chunk = 0; chunk < chunks; chunk += split ? 1 : chunks) {
          attention_tasks_.push_back({&slice, row, rows, static_cast<std::int32_t>(head),
                                      static_cast<std::int32_t>(heads), chunk, split ? chunk + 1 : chunks,
                                      split ? partials : -1});
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

void CpuBackend::attend_chunk(const AttentionTask& task, std::int64_t chunk, const AttentionArgs& args,
                              const KvCacheView& cache, float* scratch, const AttentionState& state) const {
  const KvLayout& layout = cache.layout;
  const std::int64_t head_dim = layout.head_dim;
  const std::int64_t kv_head = task.head / (args.heads / layout.kv_heads);
  const std::int64_t chunk_start = chunk * kChunkTokens;
  const SequenceSlice& slice = *task.slice;
  const std::byte* heads[kChunkTokens / kKvBlockTokens];
  const std::int64_t last = slice.first_position + task.row + task.rows;  // tokens that the last row sees
  for (std::int64_t t = chunk_start; t < std::min(last, chunk_start + kChunkTokens); t += kKvBlockTokens) {
    heads[(t - chunk_start) / kKvBlockTokens] =
        cache.head(slice.blocks[static_cast<std::size_t>(t / kKvBlockTokens)], args.layer, kv_head);
  }
  float* scores = scratch;                                               // (score_queries, 256)
  float* chunk_values = scores + kernels_.score_queries * kChunkTokens;  // (score_queries, head_dim)
  const std::int64_t queries = static_cast<std::int64_t>(task.rows) * task.heads;
  // Queries in row order; a row that ends before this chunk has no part in it.
  std::int64_t first = 0;
  while (first < queries && slice.first_position + task.row + first / task.heads + 1 <= chunk_start) {
    ++first;
  }
  while (first < queries) {
    const std::int64_t count = std::min(kernels_.score_queries, queries - first);
    const float* q[kMaxTaskQueries];
    float* out[kMaxTaskQueries];
    std::int64_t valid[kMaxTaskQueries];
    std::int64_t tokens = 0;
    for (std::int64_t n = 0; n < count; ++n) {
      const std::int64_t row = task.row + (first + n) / task.heads;
      const std::int64_t head = task.head + (first + n) % task.heads;
      q[n] = args.q + ((slice.first_row + row) * args.heads + head) * head_dim;
      out[n] = chunk_values + n * head_dim;
      valid[n] = std::min(slice.first_position + row + 1 - chunk_start, kChunkTokens);
      tokens = std::max(tokens, valid[n]);
    }
    kernels_.scores(layout.dtype, heads, tokens, q, count, head_dim, args.scale, scores);
    float max[kMaxTaskQueries];
    float sum[kMaxTaskQueries];
    for (std::int64_t n = 0; n < count; ++n) {
      kernels_.softmax(scores + n * kChunkTokens, valid[n], tokens, &max[n], &sum[n]);
    }
    kernels_.values(layout.dtype, heads, tokens, scores, count, head_dim, out);
    for (std::int64_t n = 0; n < count; ++n) {
      const std::int64_t query = first + n;
      merge_state(kernels_, chunk == task.first_chunk, state.max[query], state.sum[query],
                  state.values + query * head_dim, max[n], sum[n], out[n], head_dim);
    }
    first += count;
  }
}

void CpuBackend::attend(const AttentionTask& task, const AttentionArgs& args, const KvCacheView& cache, float* scratch,
                        const AttentionState& state) const {
  for (std::int64_t chunk = task.first_chunk; chunk < task.end_chunk; ++chunk) {
    attend_chunk(task, chunk, args, cache, scratch, state);
  }
}

void CpuBackend::attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) {
  check_attention(args, batch, cache);
  const std::int64_t head_dim = cache.layout.head_dim;
  plan_attention(args, batch, cache.layout);
  const std::int64_t state_floats = kMaxTaskQueries * (2 + head_dim);
  const std::int64_t scratch_floats = kernels_.score_queries * (kChunkTokens + head_dim);
  for (std::vector<float>& scratch : attention_scratch_) {
    scratch.resize(static_cast<std::size_t>(state_floats + scratch_floats));
  }
  const auto state_at = [&](float* place, std::int64_t queries) {
    return AttentionState{.max = place, .sum = place + queries, .values = place + 2 * queries};
  };
  const auto out_row = [&](const AttentionTask& task, std::int64_t query) {
    const std::int64_t row = task.slice->first_row + task.row + query / task.heads;
    return args.out + (row * args.heads + task.head + query % task.heads) * head_dim;
  };
  std::atomic<std::size_t> next{0};
  pool_->run([&](Worker& worker) {
    float* own = attention_scratch_[static_cast<std::size_t>(worker.index())].data();
    for (std::size_t i = next.fetch_add(1); i < attention_tasks_.size(); i = next.fetch_add(1)) {
      const AttentionTask& task = attention_tasks_[i];
      const std::int64_t queries = static_cast<std::int64_t>(task.rows) * task.heads;
      float* place = task.partial < 0 ? own + scratch_floats : attention_partials_.data() + task.partial;
      const AttentionState state = state_at(place, queries);
      attend(task, args, cache, own, state);
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
      for (; end < attention_tasks_.size() && attention_tasks_[end].first_chunk > 0; ++end) {
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
