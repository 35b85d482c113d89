#pragma once
// Speed of one engine without a server: prompts alone, and decoding at several batch sizes.
//
// Prompts are random tokens from a fixed seed, all different; answers are greedy and stop nowhere. With T(n) the time
// from submitting a batch until its last request ended, of requests with n new tokens:
//   prefill tok/s = prompt tokens / T(1), one request alone
//   decode tok/s  = batch * (n - 1) / (T(n) - T(1))
// The two times of a difference are measured one after the other, and the median, least and most over the repetitions
// are kept. The first run of each shape is not counted. In a batch whose prompts take several steps the first requests
// already decode while the last are read, so that a long prompt in a large batch makes decode look a little better
// or worse than a full batch is: compare equal settings.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lanner/engine.h"
#include "lanner/status.h"
#include "model/checkpoint.h"

namespace lanner::eval {

struct GenerationBenchmarkOptions {
  std::vector<std::int32_t> batch_sizes{1, 4, 16};
  std::vector<std::int32_t> prompt_tokens{128};
  std::int32_t output_tokens = 128;  // at least 2
  std::int32_t repetitions = 3;
  std::uint64_t seed = 0;
  /// Called before each timed batch with finished and total timed batches, on the calling thread; may be empty.
  std::function<void(std::int64_t, std::int64_t)> progress;
};

struct Spread {
  double min = 0;
  double median = 0;
  double max = 0;
};

/// Of at least one value; the median of an even number is the mean of the middle two.
Spread spread_of(std::vector<double> values);

struct PrefillSpeed {
  std::int32_t prompt_tokens = 0;
  Spread tokens_per_s;
};

struct DecodeSpeed {
  std::int32_t prompt_tokens = 0;
  std::int32_t batch_size = 0;
  Spread tokens_per_s;  // of the whole batch
  /// What a step without prompts takes the engine's thread beside waiting for the device, if that works behind it;
  /// the median over the runs of their means, microseconds.
  double host_us_per_step = 0;
};

struct GenerationSpeeds {
  std::vector<PrefillSpeed> prefill;  // one for each of prompt_tokens
  std::vector<DecodeSpeed> decode;    // one for each of prompt_tokens x batch_sizes
};

/// The engine should have its prefix cache off. kInvalidArgument for options that make no sense or do not fit the
/// engine's context.
Result<GenerationSpeeds> measure_generation(Engine& engine, const GenerationBenchmarkOptions& options);

/// How a device multiplies, which decides the peak that prompts are held against.
enum class Products : std::uint8_t {
  kFloat32,
  kInt8,  // the CPU's with quantized weights
  kHalf,  // CUDA's in fp16 and bf16
};

/// What one token costs, for comparing speeds with the device's limits.
struct DecoderCost {
  std::int64_t layer_parameters = 0;       // elements of the layers' projections: without embedding and head
  std::int64_t weight_bytes_per_step = 0;  // read by one decode step, whatever its batch size
  Products products = Products::kFloat32;
  /// Multiplications and additions for one parameter and one token: 2, or 4 where an activation is two bytes.
  int ops_per_parameter = 2;
};

/// Of a checkpoint, opened with `options` to an engine on `device` (kCpu or kCuda) that reports `weight_bytes`. What a
/// step reads is all weights, without the embedding table where the head is a matrix of its own.
Result<DecoderCost> decoder_cost(const model::Checkpoint& checkpoint, const EngineOptions& options, Device device,
                                 std::int64_t weight_bytes);

}  // namespace lanner::eval
