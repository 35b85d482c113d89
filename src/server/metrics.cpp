#include "server/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace lanner::server {
namespace {

constexpr std::array kFirstTokenBounds{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25, 0.5,
                                       0.75,  1.0,   2.5,  5.0,  7.5,  10.0, 20.0, 40.0, 80.0};
constexpr std::array kNextTokenBounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                      0.2,   0.3,    0.4,   0.5,  0.75,  1.0,  2.5,   5.0, 10.0};
constexpr std::array kRequestBounds{0.01, 0.05, 0.1,  0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,  5.0,
                                    10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0};
constexpr std::array kTokenBounds{1.0,   2.0,    5.0,    10.0,   20.0,    50.0,    100.0,   200.0,
                                  500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0, 100000.0};
constexpr std::array<std::string_view, 4> kEndings{"stop", "length", "abort", "error"};

/// As it stands between the quotes of a label.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

}  // namespace

void Histogram::observe(double value) {
  const auto at = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  counts_[static_cast<std::size_t>(at)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

std::string Histogram::text(const std::string& name, const std::string& labels) const {
  std::string out;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i <= bounds_.size(); ++i) {
    total += counts_[i].load(std::memory_order_relaxed);
    const std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    out += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bound, total);
  }
  out += fmt::format("{}_sum{{{}}} {}\n", name, labels, sum_.load(std::memory_order_relaxed));
  out += fmt::format("{}_count{{{}}} {}\n", name, labels, total);
  return out;
}

Metrics::Metrics(std::string prefix, const std::string& model_name)
    : time_to_first_token_seconds(kFirstTokenBounds),
      inter_token_latency_seconds(kNextTokenBounds),
      e2e_request_latency_seconds(kRequestBounds),
      request_prompt_tokens(kTokenBounds),
      request_generation_tokens(kTokenBounds),
      prefix_(std::move(prefix)),
      labels_(fmt::format("model_name=\"{}\"", escaped(model_name))) {}

void Metrics::http_answered(int status) {
  statuses_[static_cast<std::size_t>(std::clamp(status / 100, 0, 5))].fetch_add(1, std::memory_order_relaxed);
}

std::string Metrics::text(const Levels& levels) const {
  std::string out;
  const auto head = [&](std::string_view name, std::string_view type, std::string_view help) {
    out += fmt::format("# HELP {0}:{1} {3}\n# TYPE {0}:{1} {2}\n", prefix_, name, type, help);
  };
  const auto one = [&](std::string_view name, std::string_view type, std::string_view help, auto value) {
    head(name, type, help);
    out += fmt::format("{}:{}{{{}}} {}\n", prefix_, name, labels_, value);
  };
  const auto histogram = [&](std::string_view name, std::string_view help, const Histogram& values) {
    head(name, "histogram", help);
    out += values.text(fmt::format("{}:{}", prefix_, name), labels_);
  };
  const EngineStats& engine = levels.engine;
  const double share = levels.plan.kv_blocks > 0
                           ? static_cast<double>(engine.kv_blocks_used) / static_cast<double>(levels.plan.kv_blocks)
                           : 0.0;
  one("num_requests_running", "gauge", "Sequences that are being computed", engine.running);
  one("num_requests_waiting", "gauge", "Sequences that wait for a place", engine.waiting);
  one("kv_cache_usage_perc", "gauge", "Share of the KV cache that running sequences hold, 0 to 1", share);
  one("prefix_cache_queries_total", "counter", "Prompt tokens that the prefix cache was asked for",
      engine.prompt_tokens + engine.cached_tokens);
  one("prefix_cache_hits_total", "counter", "Prompt tokens that it had", engine.cached_tokens);
  one("num_preemptions_total", "counter", "Sequences that gave up their blocks to others", engine.preemptions);
  one("prompt_tokens_total", "counter", "Prompt tokens, those from the cache among them",
      engine.prompt_tokens + engine.cached_tokens);
  one("generation_tokens_total", "counter", "Tokens that were generated", engine.generated_tokens);
  one("corrupted_requests_total", "counter", "Requests that ended because their logits were not finite",
      engine.corrupted_requests);
  one("admission_rejections_total", "counter", "Requests that were turned away because too many were there",
      levels.refused);
  head("request_success_total", "counter", "Requests that ended, by their reason");
  for (std::size_t i = 0; i < kEndings.size(); ++i) {
    out += fmt::format("{}:request_success_total{{{},finished_reason=\"{}\"}} {}\n", prefix_, labels_, kEndings[i],
                       endings_[i].load());
  }
  head("http_responses_total", "counter", "Answers, by the class of their status");
  for (std::size_t i = 2; i < statuses_.size(); ++i) {
    out += fmt::format("{}:http_responses_total{{{},status=\"{}xx\"}} {}\n", prefix_, labels_, i, statuses_[i].load());
  }
  histogram("time_to_first_token_seconds", "From a request to the first token of its answer",
            time_to_first_token_seconds);
  histogram("inter_token_latency_seconds", "Between two tokens of one answer", inter_token_latency_seconds);
  histogram("e2e_request_latency_seconds", "From a request to its end", e2e_request_latency_seconds);
  histogram("request_prompt_tokens", "Prompt tokens of a request", request_prompt_tokens);
  histogram("request_generation_tokens", "Tokens generated for a request", request_generation_tokens);
  return out;
}

}  // namespace lanner::server
