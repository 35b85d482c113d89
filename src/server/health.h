#pragma once
// Whether the engine gets on. Threads: any.

#include <chrono>
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
    const bool same = stats.steps == seen_.steps && stats.generated_tokens == seen_.generated_tokens &&
                      stats.progress == seen_.progress;
    if (idle || !same || moved_ == Clock::time_point()) moved_ = now;
    seen_ = stats;
    stuck_ = now - moved_ > stuck_after_;
  }
  /// There is work, and nothing was done for it in a long while; a step that is long but gets on is none of that.
  bool stuck() const {
    const std::lock_guard lock(mutex_);
    return stuck_;
  }

 private:
  const std::chrono::seconds stuck_after_;
  mutable std::mutex mutex_;
  Clock::time_point moved_;
  EngineStats seen_;
  bool stuck_ = false;
};

}  // namespace lanner::server
