#include "eval/throughput_benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <span>
#include <utility>

#include "core/mapped_file.h"
#include "engine/run_requests.h"
#include "eval/token_scores.h"
#include "model/json_reader.h"

namespace lanner::eval {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kMaxRequests = 1'000'000;
constexpr std::int64_t kMaxTokens = 1 << 25;
constexpr std::size_t kWarmUpRequests = 8;

Result<std::int32_t> length(const nlohmann::ordered_json& value, const std::string& path, std::size_t index) {
  if (value.is_number_integer() && value >= 1 && value <= kMaxTokens) return value.get<std::int32_t>();
  return corrupt(fmt::format("{}: entry {}: a length must be a whole number of 1 to {}", path, index, kMaxTokens));
}

Status check(const Engine& engine, const ThroughputOptions& options) {
  if (options.requests.empty()) return invalid_argument("no requests to measure");
  for (const RequestLengths& request : options.requests) {
    if (std::int64_t{request.prompt_tokens} + request.output_tokens <= engine.session_len()) continue;
    return invalid_argument(fmt::format("{} prompt tokens and {} new ones do not fit a context of {}",
                                        request.prompt_tokens, request.output_tokens, engine.session_len()));
  }
  if (options.repetitions < 1) return invalid_argument("repetitions must be 1 or more");
  return {};
}

/// When a request's first and last token came; written on the engine's thread.
struct Times {
  Clock::time_point first;
  Clock::time_point last;
  std::int64_t tokens = 0;
};

std::vector<Request> make_requests(const Engine& engine, std::span<const RequestLengths> lengths, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto vocab = static_cast<std::uint64_t>(engine.vocab_size());
  std::vector<Request> requests;
  for (const RequestLengths& one : lengths) {
    Request request;
    request.prompt.resize(static_cast<std::size_t>(one.prompt_tokens));
    for (std::int32_t& token : request.prompt) token = static_cast<std::int32_t>(random() % vocab);
    request.max_new_tokens = one.output_tokens;
    requests.push_back(std::move(request));
  }
  return requests;
}

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

/// The run numbered `run` from 0.
Result<Throughput> measure_once(Engine& engine, const ThroughputOptions& options, std::int32_t run) {
  const std::span<const RequestLengths> lengths(options.requests);
  const std::uint64_t seed = options.seed + 2 * static_cast<std::uint64_t>(run);  // the warming-up's is one more
  std::vector<Request> requests = make_requests(engine, lengths, seed);
  std::vector<Times> times(requests.size());
  std::int64_t ended = run * std::ssize(times);  // the engine's thread counts
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_event = [&, i](const Event& event) {
      Times& mine = times[i];
      if (event.kind == Event::Kind::kToken) {
        mine.last = Clock::now();
        if (mine.tokens++ == 0) mine.first = mine.last;
      }
      if (event.kind == Event::Kind::kFinal && options.progress) {
        options.progress(++ended, static_cast<std::int64_t>(times.size()) * options.repetitions);
      }
    };
  }
  const Clock::time_point start = Clock::now();
  LANNER_RETURN_IF_ERROR(run_requests(engine, std::move(requests)));
  Throughput result{.seconds = seconds_between(start, Clock::now()),
                    .requests = static_cast<std::int64_t>(times.size())};
  std::vector<double> ttft;
  std::vector<double> tpot;
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (times[i].tokens != lengths[i].output_tokens) {
      return internal_error(
          fmt::format("{} tokens were generated instead of {}", times[i].tokens, lengths[i].output_tokens));
    }
    result.prompt_tokens += lengths[i].prompt_tokens;
    result.output_tokens += times[i].tokens;
    ttft.push_back(seconds_between(start, times[i].first));
    if (times[i].tokens > 1) {
      tpot.push_back(seconds_between(times[i].first, times[i].last) / static_cast<double>(times[i].tokens - 1));
    }
  }
  result.ttft_s = percentiles_of(ttft);
  result.tpot_s = percentiles_of(tpot);
  return result;
}

}  // namespace

Result<std::vector<RequestLengths>> read_request_lengths(const std::string& path) {
  constexpr model::JsonLimits kLimits{.max_bytes = 64 << 20, .max_depth = 4, .max_values = 3 * kMaxRequests + 1};
  LANNER_ASSIGN_OR_RETURN(const std::string text, read_file(path, kLimits.max_bytes));
  LANNER_ASSIGN_OR_RETURN(const nlohmann::ordered_json json, model::parse_json(text, path, kLimits));
  if (!json.is_array()) return corrupt(path + ": not a list of [prompt tokens, output tokens]");
  std::vector<RequestLengths> requests;
  for (std::size_t i = 0; i < json.size(); ++i) {
    if (!json[i].is_array() || json[i].size() != 2) {
      return corrupt(fmt::format("{}: entry {} is not [prompt tokens, output tokens]", path, i));
    }
    RequestLengths one;
    LANNER_ASSIGN_OR_RETURN(one.prompt_tokens, length(json[i][0], path, i));
    LANNER_ASSIGN_OR_RETURN(one.output_tokens, length(json[i][1], path, i));
    requests.push_back(one);
  }
  return requests;
}

Percentiles percentiles_of(const std::vector<double>& values) {
  if (values.empty()) return {};
  return {.p50 = percentile(values, 50), .p90 = percentile(values, 90), .p99 = percentile(values, 99)};
}

Result<Throughput> measure_throughput(Engine& engine, const ThroughputOptions& options) {
  LANNER_RETURN_IF_ERROR(check(engine, options));
  const std::span<const RequestLengths> lengths(options.requests);
  LANNER_RETURN_IF_ERROR(run_requests(
      engine, make_requests(engine, lengths.first(std::min(kWarmUpRequests, lengths.size())), options.seed + 1)));
  for (std::int32_t run = 0; run + 1 < options.repetitions; ++run) {
    LANNER_RETURN_IF_ERROR(measure_once(engine, options, run).status());
  }
  return measure_once(engine, options, options.repetitions - 1);
}

}  // namespace lanner::eval
