#pragma once
// The CPU as a Backend: cuts each operation into panels, rows or chunks, and spreads those over a thread pool.
//
// An operation is one run of the pool; linear.cpp says how products are cut. What needs whole rows of a product, such
// as a norm over it, finds them in scratch when all of their tiles are done. Rows' results never depend on how work was
// cut, nor, where options.deterministic says so, on how many rows there are (kernels.h: WHAT IS ROUNDED TO WHAT).

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/thread_pool.h"
#include "ops/backend.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/pack.h"
#include "ops/cpu/prompt.h"
#include "ops/cpu/tile_products.h"

namespace lanner::ops::cpu {

/// What multiplies many rows in bfloat16; null: the processor has none, or it is not wanted.
struct BFloat16Kernels {
  const TileKernels* tiles = nullptr;     // products with weights
  const PromptKernels* prompt = nullptr;  // of attention
};

class CpuBackend final : public Backend {
 public:
  /// options.isa and options.deterministic choose among the kernels.
  CpuBackend(std::unique_ptr<ThreadPool> pool, const CpuBackendOptions& options);
  CpuBackend(std::unique_ptr<ThreadPool> pool, const Kernels& kernels, const BFloat16Kernels& bfloat16,
             PackObserver* observer = nullptr);

  std::string description() const override;
  std::int64_t available_bytes() const override;
  std::vector<std::string> take_notes() override;
  void enter_thread() override { pool_->pin_caller(); }

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
  void handed_linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) override;
  void norm_gated_up(const Linear& linear, Gate gate, const float* x, std::int64_t rows, float* h,
                     const Linear* reader) override;
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

  static constexpr std::int64_t kAloneRows = 4;  // so many rows each worker makes ready for itself

  struct ScratchBytes {
    std::int64_t values = 0;  // each of two
    std::int64_t codes = 0;
    std::int64_t groups = 0;
    std::int64_t product = 0;
    std::int64_t tile_rooms = 0;
  };
  ScratchBytes scratch_bytes(const StepRoom& room) const;
  /// Of one worker's: a TileRoom and two rows of an input, in whole cache lines.
  static std::int64_t tile_room_bytes(std::int64_t cols) { return TileRoom::kBytes + (2 * cols * 4 + 63) / 64 * 64; }

  /// One piece of attention: query heads of some rows of a slice over some chunks of its context.
  struct AttentionTask {
    const SequenceSlice* slice;
    std::int32_t row, rows;    // of the slice
    std::int32_t head, heads;  // query heads, all of one KV head
    std::int32_t first_chunk, end_chunk;
    std::int64_t partial;  // where its state goes for a later merge, or -1: it is the whole
    bool prompt;           // by prompt_'s products
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
    const std::byte* const* next;   // and of the chunk's that comes then, or nulls: to be asked for ahead
  };

  /// out = norm(x), n elements; out may be x.
  void normalize(const Norm& norm, const float* x, std::int64_t n, float* out) const;
  /// How an operation's product is cut into work.
  struct Cut {
    const Linear& linear;
    std::int64_t rows = 0;
    std::int64_t block_rows = 0;  // rows that one worker takes through all panels; 0: the workers share the panels
    bool alone = false;           // every worker makes all rows ready for itself
    bool quantized = false;       // whether a part reads codes
  };
  /// What the workers of an operation take work from.
  struct Turns {
    std::atomic<std::int64_t> next{0};
  };
  /// What a product reads: rows of x, all in order or those that `wanted` names, or what was handed over as tiles.
  struct ProductInput {
    const float* x = nullptr;
    const std::int32_t* wanted = nullptr;
    const std::uint16_t* tiles = nullptr;
  };
  Cut cut_of(const Linear& linear, std::int64_t rows) const;
  /// A row as a Linear's parts read it, normed and in their order: at one of the places, or `in` itself.
  const float* ready_row(const Linear& linear, const float* in, float* normed, float* ordered) const;
  /// Makes ready what the parts of the Linear read of the rows [begin, end): row i is x's row wanted[i], or row i. They
  /// lie in scratch from row `place` on, where row 0 would be.
  InputView prepare_rows(const Cut& cut, const float* x, const std::int32_t* wanted, std::int64_t begin,
                         std::int64_t end, std::int64_t place);
  /// All rows, together with the other workers.
  InputView prepare(Worker& worker, const Cut& cut, const float* x, const std::int32_t* wanted);
  /// A product of `panels` panels: multiply(input, panel, panels, row, rows) for each tile, then finish(begin, end) for
  /// rows of which all tiles are done; nullptr: there is nothing to finish.
  template <typename Multiply, typename Finish>
  void run_product(const Linear& linear, const float* x, const std::int32_t* wanted, std::int64_t rows,
                   std::int64_t panels, const Multiply& multiply, const Finish& finish);
  /// A tile of a product, with the biases: its columns are those of all parts, numbered through.
  struct TakenTile {
    std::int64_t row, rows;
    std::int64_t column, columns;
    float* values;  // rows are `stride` apart, which is columns rounded up to 16; they may be changed
    std::int64_t stride;
  };
  /// The same of all parts: take(tile) for each tile.
  template <typename Take, typename Finish>
  void multiply_parts(const Linear& linear, const ProductInput& input, std::int64_t rows, const Take& take,
                      const Finish& finish);
  void add_product(const Linear& linear, const ProductInput& input, std::int64_t rows, float* x);
  /// Whether products of so many rows go in tiles of bf16.
  bool takes_tiles(const Linear& linear, std::int64_t rows) const;
  /// Whether norm_gated_up() leaves tiles at `h` for the Linear that reads them.
  bool hands_tiles(const Linear* reader, std::int64_t rows, std::int64_t width) const;
  /// Rows that one worker takes through all panels; 0: the workers share the panels.
  std::int64_t tile_block_rows(std::int64_t rows) const;
  TileRoom tile_room(const Worker& worker);
  /// Rounds the rows [begin, end) into their tiles, normed and in order, unless they are tiles already.
  void prepare_tiles(const Worker& worker, const Linear& linear, const ProductInput& input, std::int64_t begin,
                     std::int64_t end);
  /// visit(task, panel, panels, row, rows, sums), as TileWalk's, then finish(begin, end) as run_product's.
  template <typename Visit, typename Finish>
  void run_tiles(const Linear& linear, const ProductInput& input, std::int64_t rows, std::span<const TileWeights> tasks,
                 const Visit& visit, const Finish& finish);
  template <typename Visit>
  void for_each_tile(Worker& worker, Turns& turns, std::int64_t panels, const Cut& cut, const Visit& visit);
  template <typename Visit>
  void for_each_tile_of_block(std::int64_t panels, std::int64_t begin, std::int64_t end, const Visit& visit) const;

  /// Norm and rotation of one row's queries and keys, and its keys and values, kv (2, kv_heads, head_dim), into
  /// `block`.
  void finish_heads(const NormQkvArgs& args, std::int64_t row, std::int64_t position, std::int32_t block, float* kv,
                    const KvCacheView& cache) const;

  /// The first token that a query at `position` sees, and the chunk in which that lies.
  static std::int64_t first_key(const AttentionArgs& args, std::int64_t position);
  static std::int32_t first_chunk(const AttentionArgs& args, std::int64_t position);
  static bool same_queries(const AttentionTask& a, const AttentionTask& b);
  void plan_attention(const AttentionArgs& args, const Batch& batch, const KvLayout& layout);
  /// A task's chunk of the cache.
  struct ChunkHeads {
    const std::byte* heads[kChunkTokens / kKvBlockTokens];  // the KV head of its blocks; null behind the last
  };
  static ChunkHeads heads_of_chunk(const AttentionTask& task, std::int64_t chunk, const AttentionArgs& args,
                                   const KvCacheView& cache);
  void attend_chunk(const ChunkWork& work, float* scratch, const AttentionState& state) const;
  /// `count` queries of the task, from `first` on, each of which sees a token of the chunk.
  void attend_queries(const ChunkWork& work, std::int64_t first, std::int64_t count, float* scratch,
                      const AttentionState& state) const;

  /// Where a query of the task lies in q, and what it attends to in out.
  static std::int64_t query_place(const AttentionTask& task, const AttentionArgs& args, std::int64_t head_dim,
                                  std::int64_t query);
  static void write_normalized(const float* values, float sum, std::int64_t head_dim, float* out);

  /// Whether the slice's queries go through prompt_'s products.
  bool is_prompt(const SequenceSlice& slice, const KvLayout& layout) const;
  /// How many rows of a prompt, `heads` query heads of each, are a task. There are head_tasks for each row.
  std::int64_t rows_of_prompt_task(const Batch& batch, const KvLayout& layout, std::int64_t heads,
                                   std::int64_t head_tasks) const;
  std::int64_t prompt_scratch_floats(std::int64_t head_dim) const;
  struct PromptRoom;
  void attend_prompt(const AttentionTask& task, const AttentionArgs& args, const KvCacheView& cache,
                     float* scratch) const;
  /// Queries [first, first + count) of the task.
  void attend_prompt_rows(const ChunkWork& work, std::int64_t first, std::int64_t count, const PromptRoom& room) const;

  const Kernels& kernels_;
  const TileKernels* tiles_;     // or null: none, or not wanted
  const PromptKernels* prompt_;  // or null: none, or not wanted
  std::unique_ptr<ThreadPool> pool_;
  PackObserver* observer_;  // or null
  bool told_ = false;       // that threads are not pinned
  std::vector<AlignedBuffer> allocations_;
  WeightRoom weight_room_;

  // Scratch, sized by reserve().
  std::int64_t reserved_rows_ = 0;
  std::int64_t reserved_cols_ = 0;
  // Of inputs: rows of a step, then kAloneRows for each worker.
  AlignedBuffer input_values_;      // (rows, cols) normed and in order
  AlignedBuffer input_unordered_;   // (rows, cols) normed, not yet in order
  AlignedBuffer input_codes_;       // (rows, code_stride(cols)) int8, or tiles of all rows
  AlignedBuffer input_groups_;      // (rows, cols / 32)
  AlignedBuffer product_;           // (rows, cols) whole rows of products
  AlignedBuffer tile_rooms_;        // one a worker: TileRoom, then two rows of an input
  const void* tiles_at_ = nullptr;  // where norm_gated_up() has left tiles that nobody has read yet

  std::vector<AttentionTask> attention_tasks_;
  std::int64_t prompt_queries_ = 0;                    // of the largest task that is a prompt's
  std::vector<std::vector<float>> attention_scratch_;  // one a worker
  std::vector<float> attention_partials_;
  std::vector<std::vector<TokenLogprob>> sample_scratch_;  // one a worker
};

}  // namespace lanner::ops::cpu
