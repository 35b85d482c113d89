#include "eval/generation_benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>
#include <utility>

#include "core/check.h"
#include "engine/run_requests.h"
#include "model/checkpoint.h"
#include "model/decoder_config.h"

namespace lanner::eval {
namespace {

constexpr std::int32_t kMaxBatch = 4096;
constexpr std::int32_t kMaxRepetitions = 1000;

Status check(const Engine& engine, const GenerationBenchmarkOptions& options) {
  if (options.batch_sizes.empty() || options.prompt_tokens.empty()) return invalid_argument("nothing to measure");
  if (options.output_tokens < 2) return invalid_argument("output tokens: decoding shows from 2 on");
  if (options.repetitions < 1 || options.repetitions > kMaxRepetitions) {
    return invalid_argument(fmt::format("repetitions must be 1 to {}", kMaxRepetitions));
  }
  for (const std::int32_t batch : options.batch_sizes) {
    if (batch < 1 || batch > kMaxBatch) return invalid_argument(fmt::format("batch sizes must be 1 to {}", kMaxBatch));
  }
  for (const std::int32_t prompt : options.prompt_tokens) {
    if (prompt >= 1 && std::int64_t{prompt} + options.output_tokens <= engine.session_len()) continue;
    return invalid_argument(fmt::format("{} prompt tokens and {} new ones do not fit a context of {}", prompt,
                                        options.output_tokens, engine.session_len()));
  }
  return {};
}

/// What a run took.
struct Taken {
  double seconds = 0;
  std::int64_t decode_steps = 0;
  double decode_host_seconds = 0;
};

/// Once nothing runs any more: the counters follow the last request's end by an instant.
EngineStats stats_at_rest(const Engine& engine) {
  EngineStats stats = engine.stats();
  while (stats.running + stats.waiting > 0) {
    std::this_thread::yield();
    stats = engine.stats();
  }
  return stats;
}

/// One shape of requests, timed.
class Timer {
 public:
  Timer(Engine& engine, std::uint64_t seed) : engine_(engine), random_(seed) {}

  /// Until the last of `batch` requests has all its `output` tokens.
  Result<Taken> time(std::int32_t batch, std::int32_t prompt, std::int32_t output) {
    std::int64_t generated = 0;  // added to on the engine's thread, read when it has reported the last request's end
    std::vector<Request> requests;
    for (std::int32_t i = 0; i < batch; ++i) {
      Request request;
      request.prompt = random_prompt(prompt);
      request.max_new_tokens = output;
      request.on_event = [&generated](const Event& event) {
        if (event.kind == Event::Kind::kFinal) generated += event.generated_tokens;
      };
      requests.push_back(std::move(request));
    }
    const EngineStats before = stats_at_rest(engine_);
    const auto start = std::chrono::steady_clock::now();
    LANNER_RETURN_IF_ERROR(run_requests(engine_, std::move(requests)));
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    const std::int64_t wanted = std::int64_t{batch} * output;
    if (generated != wanted) {
      return internal_error(fmt::format("{} tokens were generated instead of {}", generated, wanted));
    }
    const EngineStats after = stats_at_rest(engine_);
    return Taken{.seconds = elapsed.count(),
                 .decode_steps = after.decode_steps - before.decode_steps,
                 .decode_host_seconds = after.decode_host_seconds - before.decode_host_seconds};
  }

 private:
  std::vector<std::int32_t> random_prompt(std::int32_t size) {
    const auto vocab = static_cast<std::uint64_t>(engine_.vocab_size());
    std::vector<std::int32_t> prompt(static_cast<std::size_t>(size));
    for (std::int32_t& token : prompt) token = static_cast<std::int32_t>(random_() % vocab);  // the same everywhere
    return prompt;
  }

  Engine& engine_;
  std::mt19937_64 random_;
};

/// Counts timed batches for the progress bar.
class Progress {
 public:
  explicit Progress(const GenerationBenchmarkOptions& options) : report_(options.progress) {
    const auto prompts = static_cast<std::int64_t>(options.prompt_tokens.size());
    const auto batches = static_cast<std::int64_t>(options.batch_sizes.size());
    total_ = prompts * (1 + 2 * batches) * (1 + options.repetitions);
  }
  void next() {
    if (report_) report_(done_, total_);
    ++done_;
  }

 private:
  const std::function<void(std::int64_t, std::int64_t)>& report_;
  std::int64_t done_ = 0;
  std::int64_t total_ = 0;
};

Result<PrefillSpeed> measure_prefill(Timer& timer, const GenerationBenchmarkOptions& options, std::int32_t prompt,
                                     Progress& progress) {
  std::vector<double> speeds;
  for (std::int32_t run = 0; run <= options.repetitions; ++run) {
    progress.next();
    LANNER_ASSIGN_OR_RETURN(const Taken taken, timer.time(1, prompt, 1));
    if (run > 0) speeds.push_back(prompt / taken.seconds);  // run 0 warms up
  }
  return PrefillSpeed{.prompt_tokens = prompt, .tokens_per_s = spread_of(std::move(speeds))};
}

/// T(output) - T(1), and the decode steps of the first. Where more tokens took less time, the machine was busy with
/// something else: the pair is measured again, a few times.
Result<Taken> time_decode(Timer& timer, std::int32_t prompt, std::int32_t batch, std::int32_t output,
                          Progress& progress) {
  constexpr int kTries = 5;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    if (attempt == 0) progress.next();
    LANNER_ASSIGN_OR_RETURN(const Taken one, timer.time(batch, prompt, 1));
    if (attempt == 0) progress.next();
    LANNER_ASSIGN_OR_RETURN(Taken all, timer.time(batch, prompt, output));
    all.seconds -= one.seconds;
    if (all.seconds > 0) return all;
  }
  return internal_error("the machine is too unsteady: more tokens took less time; ask for more output tokens");
}

Result<DecodeSpeed> measure_decode(Timer& timer, const GenerationBenchmarkOptions& options, std::int32_t prompt,
                                   std::int32_t batch, Progress& progress) {
  std::vector<double> speeds;
  std::vector<double> host;
  for (std::int32_t run = 0; run <= options.repetitions; ++run) {
    LANNER_ASSIGN_OR_RETURN(const Taken taken, time_decode(timer, prompt, batch, options.output_tokens, progress));
    if (run == 0) continue;  // warms up
    speeds.push_back(static_cast<double>(batch) * (options.output_tokens - 1) / taken.seconds);
    const auto steps = static_cast<double>(std::max<std::int64_t>(taken.decode_steps, 1));
    host.push_back(1e6 * taken.decode_host_seconds / steps);
  }
  return DecodeSpeed{.prompt_tokens = prompt,
                     .batch_size = batch,
                     .tokens_per_s = spread_of(std::move(speeds)),
                     .host_us_per_step = spread_of(std::move(host)).median};
}

std::int64_t parameters(const model::ProjectionSpec& projection) { return projection.rows * projection.cols; }

/// Bytes of a matrix in the engine's memory, as the five formats have it; scales of one fp16 each.
std::int64_t stored_bytes(const ops::WeightSource& source, const EngineOptions& options, Device device) {
  const std::int64_t elements = source.rows * source.cols;
  if (source.packed != nullptr && options.dtype != ComputeType::kFloat32) {
    return static_cast<std::int64_t>(source.packed->bytes.size());
  }
  if (options.dtype == ComputeType::kFloat32) return elements * 4;
  const std::int64_t scales = static_cast<std::int64_t>(source.scales.size() + source.offsets.size()) * 2;
  switch (source.format) {
    case ops::WeightFormat::kF32: return elements * (device == Device::kCuda ? 2 : 4);
    case ops::WeightFormat::kF16:
    case ops::WeightFormat::kBF16: return elements * 2;
    case ops::WeightFormat::kInt8: return elements + scales;
    case ops::WeightFormat::kInt4: return elements / 2 + scales;
  }
  return 0;
}

Products products_of(const ops::WeightSource& source, const EngineOptions& options, Device device) {
  if (options.dtype == ComputeType::kFloat32) return Products::kFloat32;
  if (device == Device::kCuda) return Products::kHalf;
  return ops::is_quantized(source.format) ? Products::kInt8 : Products::kFloat32;
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  LANNER_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {.min = values.front(), .median = median, .max = values.back()};
}

Result<GenerationSpeeds> measure_generation(Engine& engine, const GenerationBenchmarkOptions& options) {
  LANNER_RETURN_IF_ERROR(check(engine, options));
  Timer timer(engine, options.seed);
  Progress progress(options);
  GenerationSpeeds speeds;
  for (const std::int32_t prompt : options.prompt_tokens) {
    LANNER_ASSIGN_OR_RETURN(const PrefillSpeed prefill, measure_prefill(timer, options, prompt, progress));
    speeds.prefill.push_back(prefill);
    for (const std::int32_t batch : options.batch_sizes) {
      LANNER_ASSIGN_OR_RETURN(const DecodeSpeed decode, measure_decode(timer, options, prompt, batch, progress));
      speeds.decode.push_back(decode);
    }
  }
  return speeds;
}

Result<DecoderCost> decoder_cost(const model::Checkpoint& checkpoint, const EngineOptions& options, Device device,
                                 std::int64_t weight_bytes) {
  LANNER_ASSIGN_OR_RETURN(const model::DecoderSpec spec, model::read_decoder_spec(checkpoint));
  DecoderCost cost;
  for (const model::LayerSpec& layer : spec.layers) {
    cost.layer_parameters += parameters(layer.q) + parameters(layer.k) + parameters(layer.v) + parameters(layer.o) +
                             parameters(layer.gate) + parameters(layer.up) + parameters(layer.down);
  }
  const model::ProjectionSpec& first = spec.layers.front().down;
  LANNER_ASSIGN_OR_RETURN(const auto source, checkpoint.matrix(first.weight, first.rows, first.cols));
  cost.products = products_of(source, options, device);
  cost.ops_per_parameter = cost.products == Products::kInt8 ? 4 : 2;  // activations of 15 bits are two bytes (ops/cpu)
  cost.weight_bytes_per_step = weight_bytes;
  if (spec.head != spec.embedding) {
    LANNER_ASSIGN_OR_RETURN(const auto table, checkpoint.matrix(spec.embedding, spec.vocab, spec.hidden));
    cost.weight_bytes_per_step -= stored_bytes(table, options, device);
  }
  return cost;
}

}  // namespace lanner::eval
