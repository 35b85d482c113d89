#pragma once
// Whether the engine gets on. Threads: any.

#include <chrono>
#include <cstdint>
#include <mutex>

#include "lanner/engine.h"

namespace lanner::server {

class Health {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Health(std::chrono::seconds stuck_after) : stuck_after_(stuck_after) {}

  /// Called every now and then.
  void observe(const EngineStats& stats, Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    const bool idle = stats.running == 0 && stats.waiting == 0;
    if (idle || stats.steps != steps_ || stats.generated_tokens != tokens_ || moved_ == Clock::time_point()) {
      moved_ = now;
    }
    steps_ = stats.steps;
    tokens_ = stats.generated_tokens;
    stuck_ = now - moved_ > stuck_after_;
  }
  /// There is work, and no step was made for it in a long while.
  bool stuck() const {
    const std::lock_guard lock(mutex_);
    return stuck_;
  }

 private:
  const std::chrono::seconds stuck_after_;
  mutable std::mutex mutex_;
  Clock::time_point moved_;
  std::int64_t steps_ = 0;
  std::int64_t tokens_ = 0;
  bool stuck_ = false;
};

}  // namespace lanner::server
