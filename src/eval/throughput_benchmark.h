#pragma once
// A list of requests, all submitted at once: how long until the last has ended, and how long each waited.
//
// Prompts are random tokens from a seed, all different; answers are greedy, stop nowhere and have the wanted length.
// TTFT is the time from the start until a request's first token, waiting included; TPOT the time between its first and
// its last token, divided by the tokens after the first.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lanner/engine.h"
#include "lanner/status.h"

namespace lanner::eval {

struct RequestLengths {
  std::int32_t prompt_tokens = 0;
  std::int32_t output_tokens = 0;
};

/// A JSON file: a list of [prompt tokens, output tokens]. kCorrupt for anything else.
Result<std::vector<RequestLengths>> read_request_lengths(const std::string& path);

struct ThroughputOptions {
  std::vector<RequestLengths> requests;
  std::uint64_t seed = 0;
  /// How often the whole list runs, with other prompts each time; the figures are those of the last run.
  std::int32_t repetitions = 1;
  /// Called with finished and total requests of all runs on the engine's thread; may be empty.
  std::function<void(std::int64_t, std::int64_t)> progress;
};

struct Percentiles {
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
};

/// By nearest rank; zeros where there are no values.
Percentiles percentiles_of(const std::vector<double>& values);

struct Throughput {
  double seconds = 0;
  std::int64_t requests = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t output_tokens = 0;
  Percentiles ttft_s;
  Percentiles tpot_s;  // of requests with two tokens or more

  double requests_per_s() const { return static_cast<double>(requests) / seconds; }
  double output_tokens_per_s() const { return static_cast<double>(output_tokens) / seconds; }
  double total_tokens_per_s() const { return static_cast<double>(prompt_tokens + output_tokens) / seconds; }
};

/// The engine should have its prefix cache off. kInvalidArgument for an empty list or a request that does not fit the
/// engine's context. The first few requests run once before, uncounted.
Result<Throughput> measure_throughput(Engine& engine, const ThroughputOptions& options);

}  // namespace lanner::eval
