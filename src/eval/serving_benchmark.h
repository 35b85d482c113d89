#pragma once
// Requests to a server over HTTP: how many it answers, and how long each waits. For any server that has OpenAI's
// /v1/completions with streams and takes prompts of token ids.
//
// Prompts are given, or random token ids from a seed, all different, so that no cache of the server helps; answers are
// greedy, stop nowhere and have the wanted length. All times are from when a request was due: one that waits for a free
// connection here has waited. An event of a stream is a piece; how many tokens there were the server says at its end.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "eval/throughput_benchmark.h"
#include "lanner/status.h"
#include "net/url.h"

namespace lanner::eval {

/// What a request must keep to count as served well: each bound that is there.
struct LatencyBounds {
  std::optional<double> ttft_s;
  std::optional<double> tpot_s;
  std::optional<double> latency_s;
};

struct ServingOptions {
  std::string url;  // without a slash at its end
  std::string api_key;
  std::string model;
  std::vector<RequestLengths> requests;
  std::vector<std::string> prompts;  // one a request, whose prompt_tokens then mean nothing; empty: random ones
  LatencyBounds bounds;
  int concurrency = 32;     // requests under way at once, at most
  double request_rate = 0;  // a second, at random times (a Poisson process); 0: as soon as one may
  std::uint64_t seed = 0;
  net::ProxySettings proxies;
  const std::atomic<bool>* cancelled = nullptr;
  /// Called with finished and total requests, from several threads in turn; may be empty.
  std::function<void(std::int64_t, std::int64_t)> progress;
};

/// Mean and percentiles by nearest rank; zeros where there are no values.
struct Distribution {
  double mean = 0;
  double p50 = 0;
  double p75 = 0;
  double p95 = 0;
  double p99 = 0;
};
Distribution distribution_of(const std::vector<double>& values);

struct Serving {
  double seconds = 0;
  std::int64_t requests = 0;
  std::int64_t successful = 0;
  std::int64_t good = 0;                         // of them, within the bounds
  std::map<std::string, std::int64_t> failures;  // by what was said: "429", "Connection refused"
  std::int64_t prompt_tokens = 0;                // of successful requests
  std::int64_t output_tokens = 0;
  Distribution latency_s;      // until the last piece
  Distribution ttft_s;         // until the first
  Distribution tpot_s;         // from the first to the last, a token; of answers with two tokens or more
  Distribution inter_piece_s;  // between two pieces, of all answers together

  double requests_per_s() const { return static_cast<double>(successful) / seconds; }
  double goodput() const { return static_cast<double>(good) / seconds; }  // requests a second
  double prompt_tokens_per_s() const { return static_cast<double>(prompt_tokens) / seconds; }
  double output_tokens_per_s() const { return static_cast<double>(output_tokens) / seconds; }
};

/// The first id of what /v1/models answers; nothing where that is no list of models.
std::optional<std::string> first_model_of(const std::string& body);
/// The first model that the server lists.
Result<std::string> first_model(const ServingOptions& options);
/// kInvalidArgument for an empty list, kCancelled; the failure of the first request when none succeeded.
Result<Serving> measure_serving(const ServingOptions& options);

}  // namespace lanner::eval
