#pragma once
// The CPU as a Backend: cuts each operation into panels, rows or chunks, and spreads those over a thread pool.
//
// An operation is one run of the pool. Inside, phases that need each other's results are separated by a barrier:
// prepare the input rows (norm, order, int8), multiply and finish. What needs whole rows of the product, such as a norm
// over it, finds them in scratch after one more barrier. Rows' results never depend on how work was cut.

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
  CpuBackend(std::unique_ptr<ThreadPool> pool, const CpuBackendOptions& options);

  std::string description() const override;
  std::int64_t available_bytes() const override;

  Result<std::shared_ptr<const PackedWeight>> pack(WeightSource source, Arithmetic arithmetic) override;
  Result<std::shared_ptr<const DeviceVector>> upload(std::span<const float> values) override;
  Result<std::byte*> allocate(std::int64_t bytes, const char* what) override;
  Status reserve(const StepRoom& room) override;
  std::int64_t reserve_bytes(const StepRoom& room) const override;

  void embed(const PackedWeight& table, const Batch& batch, float scale, float* x) override;
  void rope_angles(const Rope& rope, const Batch& batch, float* angles) override;
  void norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) override;
  void attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) override;
  void linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) override;
  void norm_gated_up(const Linear& linear, Gate gate, const float* x, std::int64_t rows, float* h,
                     const Linear* /*reader*/) override;
  void norm_head(const Linear& linear, const float* x, std::span<const std::int32_t> wanted, float* logits) override;
  void norm_rows(const Norm& norm, const float* x, std::int64_t cols, std::span<const std::int32_t> wanted,
                 float* out) override;
  bool sample(std::span<const SampleRow> rows, std::span<SampledToken> tokens) override;
  void read(const float* from, std::int64_t count, float* to) override;
  void write(const float* from, std::int64_t count, float* to) override;
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
  /// One chunk of 256 tokens of a task's context.
  struct ChunkWork {
    const AttentionTask& task;
    const AttentionArgs& args;
    const KvLayout& layout;
    std::int64_t chunk;
    const std::byte* const* heads;  // the KV head of the chunk's blocks
  };

  /// out = norm(x), n elements; out may be x.
  void normalize(const Norm& norm, const float* x, std::int64_t n, float* out) const;
  /// Makes ready what the parts of `linear` read, from rows `row_of(0..rows)` of x; ends with a barrier.
  InputView prepare(Worker& worker, const Linear& linear, const float* x, const std::int32_t* wanted,
                    std::int64_t rows);
  /// finish(part, row, column, count, values): `count` columns of one row of one part's product, 16 but for the part's
  /// last ones. There is room for 16 in any case.
  template <typename Finish>
  void multiply_parts(std::atomic<std::int64_t>& next, const Linear& linear, const InputView& input, std::int64_t rows,
                      const Finish& finish);
  template <typename Visit>
  void for_each_tile(std::atomic<std::int64_t>& next, std::int64_t panels, std::int64_t rows, const Visit& visit);

  /// What follows the preparation in a linear_add with a norm behind the product.
  void add_normed(Worker& worker, std::atomic<std::int64_t>& next, const Linear& linear, const InputView& input,
                  std::int64_t rows, float* x);
  /// Norm and rotation of one row's queries and keys, and its keys and values, kv (2, kv_heads, head_dim), into
  /// `block`.
  void finish_heads(const NormQkvArgs& args, std::int64_t row, std::int64_t position, std::int32_t block, float* kv,
                    const KvCacheView& cache) const;

  static bool same_queries(const AttentionTask& a, const AttentionTask& b);
  void plan_attention(const AttentionArgs& args, const Batch& batch, const KvLayout& layout);
  void attend(const AttentionTask& task, const AttentionArgs& args, const KvCacheView& cache, float* scratch,
              const AttentionState& state) const;
  void attend_chunk(const AttentionTask& task, std::int64_t chunk, const AttentionArgs& args, const KvCacheView& cache,
                    float* scratch, const AttentionState& state) const;
  /// `count` queries of the task, from `first` on, each of which sees a token of the chunk.
  void attend_queries(const ChunkWork& work, std::int64_t first, std::int64_t count, float* scratch,
                      const AttentionState& state) const;

  const Kernels& kernels_;
  std::unique_ptr<ThreadPool> pool_;
  PackObserver* observer_;  // or null
  std::vector<AlignedBuffer> allocations_;

  // Scratch, sized by reserve().
  std::int64_t reserved_rows_ = 0;
  std::int64_t reserved_cols_ = 0;
  AlignedBuffer input_values_;  // (rows, cols) normed input
  AlignedBuffer input_codes_;   // (2, rows, cols) int8: high and low
  AlignedBuffer input_scales_;  // (rows, cols / 32)
  AlignedBuffer input_sums_;    // (rows, cols / 16)
  AlignedBuffer product_;       // (rows, cols) whole rows: of products, and of normed input before it is reordered

  std::vector<AttentionTask> attention_tasks_;
  std::vector<std::vector<float>> attention_scratch_;  // one a worker
  std::vector<float> attention_partials_;
  std::vector<std::vector<TokenLogprob>> sample_scratch_;  // one a worker
};

}  // namespace lanner::ops::cpu
