#pragma once
// The CPU as a Backend: cuts each operation into panels, rows or chunks, and spreads those over a thread pool.
//
// An operation is one run of the pool. Inside, phases that need each other's results are separated by a barrier:
// prepare the input rows (norm, int8), multiply and finish. Rows' results never depend on how work was cut.

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/thread_pool.h"
#include "ops/backend.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/pack.h"

namespace lanner::ops::cpu {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(std::unique_ptr<ThreadPool> pool);

  std::string description() const override;
  std::int64_t available_bytes() const override;

  Result<std::shared_ptr<const PackedWeight>> pack(WeightSource source, Arithmetic arithmetic) override;
  Result<std::shared_ptr<const DeviceVector>> upload(std::span<const float> values) override;
  Result<std::byte*> allocate(std::int64_t bytes, const char* what) override;
  Status reserve(std::int64_t rows, std::int64_t max_cols) override;

  void embed(const PackedWeight& table, const Batch& batch, float* x) override;
  void rope_angles(const Rope& rope, const Batch& batch, float* angles) override;
  void norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) override;
  void attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) override;
  void linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) override;
  void norm_gated_up(const Linear& linear, Gate gate, const float* x, std::int64_t rows, float* h) override;
  void norm_head(const Linear& linear, const float* x, std::span<const std::int32_t> wanted, float* logits) override;
  void norm_rows(const RmsNorm& norm, const float* x, std::int64_t cols, std::span<const std::int32_t> wanted,
                 float* out) override;
  void sample(std::span<const SampleRow> rows, std::span<SampledToken> tokens) override;
  void read_kv(const KvCacheView& cache, std::int64_t block, std::int64_t layer, std::int64_t kv_head, float* keys,
               float* values) override;

 private:
  using Worker = ThreadPool::Worker;

  /// One piece of attention: query heads of some rows of a slice over some chunks of its context.
  struct AttentionTask {
    const SequenceSlice* slice;
    std::int32_t row, rows;    // of the slice
    std::int32_t head, heads;  // query heads, all of one KV head
    std::int32_t first_chunk, end_chunk;
    std::int64_t partial;  // where its state goes for a later merge, or -1: it is the whole
  };
  /// Running softmax of some queries: their maxima, sums and weighted values.
  struct AttentionState {
    float* max;     // (queries)
    float* sum;     // (queries)
    float* values;  // (queries, head_dim)
  };

  /// Makes ready what the parts of `linear` read, from rows `row_of(0..rows)` of x; ends with a barrier.
  InputView prepare(Worker& worker, const Linear& linear, const float* x, const std::int32_t* wanted,
                    std::int64_t rows);
  /// epilogue(part, row, column, count, values): 16 or fewer columns of one row of one part's product.
  template <typename Epilogue>
  void multiply_parts(std::atomic<std::int64_t>& next, const Linear& linear, const InputView& input, std::int64_t rows,
                      const Epilogue& epilogue);
  template <typename Visit>
  void for_each_tile(std::atomic<std::int64_t>& next, std::int64_t panels, std::int64_t rows, const Visit& visit);

  void plan_attention(const AttentionArgs& args, const Batch& batch, const KvLayout& layout);
  void attend(const AttentionTask& task, const AttentionArgs& args, const KvCacheView& cache, float* scratch,
              const AttentionState& state) const;
  void attend_chunk(const AttentionTask& task, std::int64_t chunk, const AttentionArgs& args, const KvCacheView& cache,
                    float* scratch, const AttentionState& state) const;

  const Kernels& kernels_;
  std::unique_ptr<ThreadPool> pool_;
  std::vector<AlignedBuffer> allocations_;

  // Scratch, sized by reserve().
  std::int64_t reserved_rows_ = 0;
  std::int64_t reserved_cols_ = 0;
  AlignedBuffer input_values_;  // (rows, cols) normed input
  AlignedBuffer input_codes_;   // (2, rows, cols) int8: high and low
  AlignedBuffer input_scales_;  // (rows, cols / 32)
  AlignedBuffer input_sums_;    // (rows, cols / 16)
  AlignedBuffer product_;       // (rows, cols) keys and values before they are written to the cache

  std::vector<AttentionTask> attention_tasks_;
  std::vector<std::vector<float>> attention_scratch_;  // one a worker
  std::vector<float> attention_partials_;
  std::vector<std::vector<TokenLogprob>> sample_scratch_;  // one a worker
};

}  // namespace lanner::ops::cpu
