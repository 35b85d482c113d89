#pragma once
// The answers that are being made, so that all can be stopped when time is up. Threads: any.

#include <functional>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lanner::server {

class RunningAnswers {
 public:
  /// `abort` may be called once the answer has ended, too; `key` is whatever tells it from others.
  void add(const void* key, std::function<void()> abort) {
    const std::lock_guard lock(mutex_);
    aborts_.insert_or_assign(key, std::move(abort));
  }
  void remove(const void* key) {
    const std::lock_guard lock(mutex_);
    aborts_.erase(key);
  }
  void abort_all() {
    std::vector<std::function<void()>> aborts;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [key, abort] : aborts_) aborts.push_back(abort);
    }
    for (const auto& abort : aborts) abort();  // which may call remove()
  }

 private:
  std::mutex mutex_;
  std::unordered_map<const void*, std::function<void()>> aborts_;
};

}  // namespace lanner::server
