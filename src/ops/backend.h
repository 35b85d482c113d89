#pragma once
// A device that runs the model: its memory, and every arithmetic operation, one virtual function each.
//
// Implementations: CpuBackend (cpu/), CudaBackend (cuda/; no_cuda/ takes its place in builds without CUDA), and
// ReferenceBackend (reference/), plain fp32 loops that the tests hold all others against and that never serve. Shapes
// are checked once, at the door of an operation, by the functions of check_arguments.h; bodies trust them.
//
// A backend belongs to one thread at a time. Packed weights and vectors outlive nothing but themselves: they may be
// released in any order. Pointers to activations are in backend memory, row major, fp32. begin_step() or else embed()
// begins a step: what follows, up to the next one, is called with the same batch.
//
// A device may work behind the host: sample() may answer before the tokens are known, and the next step may be put to
// work meanwhile, with rows whose tokens are those that are not known yet (Batch::tokens). collect() waits for them.
//
// FAILURE. What is called in a step answers nothing. A device that fails keeps its first failure, leaves out what else
// it is asked for, and tells it in take_failure(), which its caller asks after a step was put to work and after each
// collect(). Steps put to work before the failing one are not concerned by a failure that says kResourceExhausted: the
// device lacked memory, has given back what it can do without, and may be asked for the same step again. Any other
// failure is the device's own, and nothing that it computed since the last collect() counts.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/cpu_info.h"
#include "lanner/status.h"
#include "ops/batch.h"
#include "ops/kv_cache.h"
#include "ops/linear.h"
#include "ops/sampling.h"

namespace lanner::ops {

enum class Gate : std::uint8_t { kSilu, kGelu, kGeluTanh };

/// Rotary frequencies: element i of the first half turns by position * inverse_frequencies[i], then both are
/// multiplied by `scale` (yarn's attention factor).
struct Rope {
  std::shared_ptr<const DeviceVector> inverse_frequencies;  // (rotary_dim / 2)
  float scale = 1.0F;
};

/// How the backend computes products with quantized weights.
enum class Arithmetic : std::uint8_t {
  kFast,   // what the backend likes best: see "WHAT IS ROUNDED TO WHAT" in cpu/kernels.h and cuda/kernels.h
  kExact,  // fp32 throughout; quantized weights are widened when they are packed
};

/// In this order: the Linear, the norms of heads, the rotation; then k and v are rounded into the cache.
struct NormQkvArgs {
  const float* x = nullptr;            // (rows, hidden)
  const Linear* linear = nullptr;      // parts q, k, v
  const float* rope_angles = nullptr;  // (rows, rotary_dim): cosines, then sines
  std::int64_t rotary_dim = 0;         // 0: nothing rotates
  std::int64_t heads = 0;
  std::int64_t layer = 0;
  // Norms over each head of q and of k, before the rotation: gain (head_dim). None where empty.
  Norm q_norm;
  Norm k_norm;
  float* q = nullptr;  // out: (rows, heads, head_dim)
};

/// out = softmax(scores) · V; a score is q · k with, in this order, scale, soft cap, slope and window.
struct AttentionArgs {
  const float* q = nullptr;  // (rows, heads, head_dim)
  std::int64_t heads = 0;
  std::int64_t layer = 0;
  float scale = 0;          // multiplies the scores, usually 1 / sqrt(head_dim)
  float soft_cap = 0;       // scaled scores become cap * tanh(score / cap), before the slopes; 0: none
  std::int64_t window = 0;  // a query sees its own position and the window - 1 before it; 0: all
  /// ALiBi (arXiv 2108.12409): slope * (key position - query position) is added to each score. (heads) or null.
  std::shared_ptr<const DeviceVector> alibi_slopes;
  const Linear* reader = nullptr;  // of `out`, if it is handed over: see Backend::handed_linear_add()
  float* out = nullptr;            // (rows, heads, head_dim)
};

/// A whole step, from embed() to norm_head() and norm_rows(), as its caller announces it. What is called for a step of
/// one model depends on these fields alone.
struct StepPlan {
  const void* model = nullptr;  // whose operations follow: tells the steps of several models apart
  Batch batch;
  KvCacheView cache;
  std::span<const std::int32_t> logits;  // rows of the batch whose logits are wanted, and whose hidden states
  std::span<const std::int32_t> hidden;
  std::int64_t most_rows = 0;  // rows for which activations and logits have room
};

/// The largest step for which memory is taken before the first, so that no step need take any. Zero: unknown, and taken
/// when a step needs it.
struct StepRoom {
  std::int64_t rows = 0;
  std::int64_t max_cols = 0;  // of inputs and outputs of operations
  std::int64_t slices = 0;    // sequences
  std::int64_t blocks = 0;    // of all slices together, those that they share counted once for each
  std::int64_t sampled = 0;   // rows
  std::int64_t vocab = 0;
  std::int64_t history = 0;  // tokens of all sampled rows together, for their penalties
};

/// Calls of Backend::sample() whose tokens have not been collected: one of the step before and one of this step.
inline constexpr int kMostUncollected = 2;

class Backend {
 public:
  virtual ~Backend() = default;

  /// "cpu avx512, 2 threads": for logs and reports.
  virtual std::string description() const = 0;
  /// Bytes that may still be allocated on the device.
  virtual std::int64_t available_bytes() const = 0;
  /// Bytes of weights that are kept a second time, in another form; see CudaBackendOptions::copies.
  virtual std::int64_t copy_bytes() const { return 0; }

  /// The calling thread is from now on the one that calls the operations: a device may have a place for it.
  virtual void enter_thread() {}

  // Memory. Sizes are in bytes; kResourceExhausted when there is none left.
  virtual Result<std::shared_ptr<const PackedWeight>> pack(WeightSource source, Arithmetic arithmetic) = 0;
  virtual Result<std::shared_ptr<const DeviceVector>> upload(std::span<const float> values) = 0;
  virtual Result<std::byte*> allocate(std::int64_t bytes, const char* what) = 0;  // zeroed; freed with the backend
  /// Makes room in the backend's scratch for steps of up to that size.
  virtual Status reserve(const StepRoom& room) = 0;
  /// What that takes, with the weights that are packed by now.
  virtual std::int64_t reserve_bytes(const StepRoom& room) const = 0;
  /// Takes what a Linear needs besides its parts; optional, since its first use takes it otherwise.
  virtual Status prepare_linear(const Linear& /*linear*/) { return {}; }

  /// Announces a step. True: the device has done a step of this shape before and repeats it with the plan's contents;
  /// the caller leaves out the operations and goes on with end_step(). Between the two calls nothing but the plan's
  /// operations may be called. Who announces nothing begins with embed().
  virtual bool begin_step(const StepPlan& plan);
  /// False: nothing has been done yet, since the device could not keep what it was told for the next time. The caller
  /// calls the operations once more, and end_step() behind them.
  [[nodiscard]] virtual bool end_step() { return true; }

  /// The first failure since the last call; see above. Ok on devices that cannot fail.
  virtual Status take_failure() { return {}; }
  /// What whoever runs the program should know of the device, since the last call: a line each, said once.
  virtual std::vector<std::string> take_notes() { return {}; }

  // Before the layers: x[row] = scale * table[token[row]]; and the cosines and sines of the step's positions.
  virtual void embed(const PackedWeight& table, const Batch& batch, float scale, float* x) = 0;
  virtual void rope_angles(const Rope& rope, const Batch& batch, float* angles) = 0;

  // The operations of a layer.
  virtual void norm_qkv(const NormQkvArgs& args, const Batch& batch, const KvCacheView& cache) = 0;
  virtual void attention(const AttentionArgs& args, const Batch& batch, const KvCacheView& cache) = 0;
  /// x += post_norm(scale * (input · Wᵀ (+ bias))). input (rows, cols), x (rows, W.rows).
  virtual void linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) = 0;
  /// The same for an input that attention() or norm_gated_up() handed over: they were told this Linear as the reader,
  /// so that it lies at its place in whatever way the device likes best, and nobody else may look at it. On most it is
  /// fp32.
  virtual void handed_linear_add(const Linear& linear, const float* input, std::int64_t rows, float* x) {
    linear_add(linear, input, rows, x);
  }
  /// h = gate(norm(x) · Wgateᵀ) * (norm(x) · Wupᵀ). Parts gate, up; x (rows, cols), h (rows, Wgate.rows). With one
  /// part, an MLP without a gate: h = gate(norm(x) · Wᵀ). `reader`: of h, if it is handed over, else null.
  virtual void norm_gated_up(const Linear& linear, Gate gate, const float* x, std::int64_t rows, float* h,
                             const Linear* reader) = 0;

  /// After them: logits[i] = soft_cap(scale * norm(x[wanted[i]]) · Wᵀ), (wanted, W.rows).
  virtual void norm_head(const Linear& linear, const float* x, std::span<const std::int32_t> wanted, float* logits) = 0;
  /// out[i] = norm(x[wanted[i]]), (wanted, cols): hidden states for whoever asks for them.
  virtual void norm_rows(const Norm& norm, const float* x, std::int64_t cols, std::span<const std::int32_t> wanted,
                         float* out) = 0;
  /// The rows' logits are in backend memory, where norm_head wrote them, and may be overwritten. True: `tokens` are
  /// there. False: collect() brings them; until then a batch may name them, and output_tokens may hold such names.
  virtual bool sample(std::span<const SampleRow> rows, std::span<SampledToken> tokens) = 0;
  /// Waits for the tokens of the oldest sample() that answered false and was not collected. At most kMostUncollected
  /// are under way.
  virtual void collect(std::span<SampledToken> tokens);

  /// `count` floats between backend memory and the host's, in order with the operations before and after. read()
  /// returns when they are there.
  virtual void read(const float* from, std::int64_t count, float* to) = 0;
  virtual void write(const float* from, std::int64_t count, float* to) = 0;
  /// The keys and values that a block holds for one layer and head, widened: (64, head_dim) each. For tests.
  virtual void read_kv(const KvCacheView& cache, std::int64_t block, std::int64_t layer, std::int64_t kv_head,
                       float* keys, float* values) = 0;
};

/// Is told what a CPU backend keeps, in the order of the calls of pack() and upload(): how a model is converted.
class PackObserver {
 public:
  virtual ~PackObserver() = default;
  virtual void packed(std::int64_t rows, std::int64_t cols, const PackedImage& image) = 0;
  virtual void uploaded(std::span<const float> values) = 0;
};

struct CpuBackendOptions {
  int threads = 0;                   // 0: available_processors()
  PackObserver* observer = nullptr;  // outlives the backend
  CpuIsa isa = selected_cpu_isa();   // whose kernels; not above detected_cpu_isa()
  bool pin_threads = false;          // each to a processor of its own; the caller's with enter_thread()
  /// A row's result depends on that row and its cache alone, whatever else is in the batch. Slower with many rows on a
  /// processor that multiplies numbers of 16 bits (AMX, AVX-512 BF16), the only ones where it makes a difference.
  bool deterministic = false;
};

struct CudaBackendOptions {
  int device = 0;
  /// A row's result depends on that row and its cache alone, whatever else is in the batch. Slower with many rows.
  bool deterministic = false;
  /// What dense weights are converted to, kF16 or kBF16; nothing: they stay as they are.
  std::optional<DType> dense{};
  int threads = 0;  // of the host, for packing weights; 0: as many as help
  /// Whether quantized weights are kept once more in fp16, as far as memory goes, for products of many rows. Without
  /// effect where `deterministic`.
  bool copies = false;
};

/// Elements of the longest head that attention on CUDA computes with, and the largest vocabulary that it samples from.
inline constexpr std::int64_t kCudaMaxHeadDim = 256;
inline constexpr std::int64_t kCudaMaxVocabulary = 1 << 19;

/// What this build and this machine have of CUDA.
struct CudaSupport {
  struct Device {
    std::string name;
    std::string capability;  // such as "9.0"
    std::int64_t memory_bytes = 0;
    int multiprocessors = 0;
    bool usable = false;  // 8.0 or newer
  };
  bool built = false;
  std::string runtime{};  // the version that was built with, such as "13.0"
  std::string driver{};   // the newest version that the driver knows; empty: no driver
  std::string problem{};  // why there is no device; empty when there is one
  std::vector<Device> devices{};
};

/// kResourceExhausted where that many threads cannot be started.
Result<std::unique_ptr<Backend>> make_cpu_backend(const CpuBackendOptions& options);
/// kUnsupported in a build without CUDA or for a device too old, kInternal or kResourceExhausted where the device
/// cannot be used.
Result<std::unique_ptr<Backend>> make_cuda_backend(const CudaBackendOptions& options);
CudaSupport cuda_support();
/// Bytes that nobody has of a device's memory; 0 where it cannot be asked.
std::int64_t cuda_free_bytes(int device);
bool cuda_is_built();
/// Starts the driver and opens libraries, which takes some tenths of a second, so that make_cuda_backend() finds it
/// done: to be called at once, on a thread of its own. What fails shows there.
void warm_up_cuda(int device);

/// What a CUDA device can do at most, measured now: reading memory once, and products of large fp16 matrices with
/// random numbers (0 where there is no cuBLASLt).
struct CudaLimits {
  double read_bytes_per_s = 0;
  double half_ops_per_s = 0;
};
/// Takes a share of the free memory for its time. Fails as make_cuda_backend does.
Result<CudaLimits> measure_cuda_limits(int device);
std::unique_ptr<Backend> make_reference_backend();

}  // namespace lanner::ops
