#pragma once
// What the server counts, and the text in which Prometheus reads it: the names of vLLM under a prefix of our own, so
// that its dashboards need another prefix and nothing else.
//
// Threads: any. An observation takes no lock.

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lanner/engine.h"

namespace lanner::server {

/// How many values fell below each of some bounds.
class Histogram {
 public:
  /// `bounds` ascend and live as long as the histogram.
  explicit Histogram(std::span<const double> bounds)
      : bounds_(bounds), counts_(std::make_unique<std::atomic<std::uint64_t>[]>(bounds.size() + 1)) {}

  void observe(double value);
  /// Lines of the text format, without HELP and TYPE.
  std::string text(const std::string& name, const std::string& labels) const;

 private:
  std::span<const double> bounds_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> counts_;  // (bounds + 1), the last one: above all bounds
  std::atomic<double> sum_ = 0;
};

/// Why a request ended, as in the label finished_reason.
enum class Ending : std::uint8_t { kStop, kLength, kAbort, kError };

class Metrics {
 public:
  Metrics(std::string prefix, const std::string& model_name);

  Histogram time_to_first_token_seconds;
  Histogram inter_token_latency_seconds;
  Histogram e2e_request_latency_seconds;
  Histogram request_prompt_tokens;
  Histogram request_generation_tokens;

  void request_ended(Ending ending) { endings_[static_cast<std::size_t>(ending)].fetch_add(1); }
  void http_answered(int status);

  /// Everything, with what the engine counts itself. `waiting` and `refused` are requests at the door.
  struct Levels {
    EngineStats engine;
    MemoryPlan plan;
    std::int64_t refused = 0;
  };
  std::string text(const Levels& levels) const;

 private:
  const std::string prefix_;
  const std::string labels_;  // model_name="…"
  std::array<std::atomic<std::uint64_t>, 4> endings_{};
  std::array<std::atomic<std::uint64_t>, 6> statuses_{};  // of 1xx to 5xx, at 1 to 5
};

}  // namespace lanner::server
