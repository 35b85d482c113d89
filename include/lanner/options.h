#pragma once
// How an engine is set up. The names are those of the command line's flags and of Python's TurbomindEngineConfig.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace lanner {

/// Where the model runs.
enum class Device : std::uint8_t {
  kAuto,  // CUDA where the program was built with it and there is a device, else the CPU
  kCpu,
  kCuda,
};

/// Arithmetic and KV cache.
enum class ComputeType : std::uint8_t {
  kAuto,      // CPU: quantized weights with 15-bit activations, dense ones in fp32; the KV cache in fp16. CUDA: the
              // checkpoint's own 16-bit type, fp16 where it has none
  kFloat32,   // fp32 throughout: quantized weights are widened at load, the KV cache is fp32
  kFloat16,   // as kAuto on the CPU; CUDA: dense weights, products and the KV cache in fp16
  kBFloat16,  // as kAuto on the CPU, with the KV cache in bf16; CUDA: as kFloat16, in bf16
};

/// How the KV cache keeps a number. The values are those of LMDeploy's quant_policy.
enum class QuantPolicy : std::uint8_t {
  kNone = 0,  // as ComputeType says: in 16 bits, or 32
  kInt4 = 4,  // codes of 4 bits, with a scale and a smallest number in fp16 for each token and KV head
  kInt8 = 8,  // the same of 8 bits
};

/// Where the host's memory lies on a machine that has several memory nodes.
enum class NumaPolicy : std::uint8_t {
  kSystem,      // where the thread runs that writes it first
  kInterleave,  // spread over all nodes, page by page
};

/// Whether weights of 4 and 8 bits are kept once more in fp16 on CUDA, for steps of more than 8 rows: prompts, and many
/// sequences at once. Without copies each step widens them again, one after the other.
enum class WeightCopy : std::uint8_t {
  kAuto,  // where the copies take at most a quarter of what the KV cache may take
  kOn,    // all of them; the model is not opened where they do not fit beside the weights
  kOff,
};

struct EngineOptions {
  /// How a model folder keeps its matrices: "awq" or "gptq"; empty or "hf": as its config.json says.
  std::string model_format;
  Device device = Device::kAuto;
  ComputeType dtype = ComputeType::kAuto;
  QuantPolicy quant_policy = QuantPolicy::kNone;
  WeightCopy w4_prefill_copy = WeightCopy::kAuto;
  /// Share of the memory that is free after weights and workspace which the KV cache may take.
  double cache_max_entry_count = 0.8;
  /// Write to the whole KV cache at the start, so that on the CPU all of it is resident; else it grows as it fills.
  bool fill_kv_cache = false;
  /// Longest context, prompt and answer together; 0: what the model was trained for.
  std::int32_t session_len = 0;
  /// Sequences that run at once. Nothing: as LMDeploy 1024 on H100, H200, H800 and L20Y, 384 on A100 and A800, and 128
  /// elsewhere.
  std::optional<std::int32_t> max_batch_size{};
  /// Prompt tokens of one step; longer prompts are computed in chunks, while others go on decoding. Nothing: 512 on the
  /// CPU, up to 8192 on CUDA, as far as they fit.
  std::optional<std::int32_t> max_prefill_token_num{};
  /// Requests that may wait; one more is refused with kResourceExhausted. 0: no limit.
  std::int32_t max_queue = 0;
  bool enable_prefix_caching = true;
  /// A row's result depends on that row and its cache alone. Makes steps of many rows slower on CUDA, and on a CPU that
  /// multiplies numbers of 16 bits (AMX, fast AVX512-BF16); on others it is always so.
  bool deterministic = false;
  /// CPU threads; 0: one for each fast core that this process may use, within its cgroup's quota. On CUDA they prepare
  /// weights and sample.
  std::int32_t threads = 0;
  /// On the CPU: each thread stays on a processor of its own, of as many cores as there are. Faster and steadier on a
  /// machine that has other work, as long as no other program pins its threads to the same ones. A note says where it
  /// cannot be.
  bool pin_threads = false;
  /// Of weights, KV cache and scratch. kUnsupported where the system does not let this process choose.
  NumaPolicy numa = NumaPolicy::kSystem;
  /// Told what whoever runs the engine should know while it runs, a line each, on the engine's thread; may be empty.
  std::function<void(std::string_view)> on_note{};
  /// For tests: exactly this many KV blocks; 0: by cache_max_entry_count.
  std::int64_t kv_blocks = 0;
};

}  // namespace lanner
