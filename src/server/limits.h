#pragma once
// How much goes on at once, and whether anything new may begin.
//
// Each request counts as many places as it makes answers. A request that would go beyond the limit is turned away at
// once, before any work is done for it; one alone is always let in, however many answers it makes.
//
//   std::optional<Place> place = limits.enter(n);      // nothing: turned away
//   … the request ends when `place` is destroyed
//
// Threads: any.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>

namespace lanner::server {

class Limits {
 public:
  class Place {
   public:
    Place(Limits& limits, std::int64_t count) : limits_(&limits), count_(count) {}
    Place(Place&& other) noexcept : limits_(std::exchange(other.limits_, nullptr)), count_(other.count_) {}
    Place& operator=(Place&&) = delete;
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    ~Place() {
      if (limits_ != nullptr) limits_->leave(count_);
    }

   private:
    Limits* limits_;
    std::int64_t count_;
  };

  /// `most` 0: no limit.
  explicit Limits(std::int64_t most) : most_(most) {}

  std::optional<Place> enter(std::int64_t count) {
    const std::lock_guard lock(mutex_);
    if (closed_ || (most_ > 0 && taken_ > 0 && taken_ + count > most_)) {
      ++refused_;
      return std::nullopt;
    }
    taken_ += count;
    return Place(*this, count);
  }

  /// Whether a request for one answer has no chance; it counts as refused then. Cheap, so that a request can be turned
  /// away before anything is made of it. enter() decides on the others.
  bool refuse_if_full() {
    const std::lock_guard lock(mutex_);
    const bool full = closed_ || (most_ > 0 && taken_ >= most_);
    if (full) ++refused_;
    return full;
  }

  /// From now on nobody gets in.
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  /// Whether all have left by then.
  bool wait_until_empty(std::chrono::steady_clock::time_point until) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, until, [&] { return taken_ == 0; });
  }
  std::int64_t taken() const {
    const std::lock_guard lock(mutex_);
    return taken_;
  }
  /// How often enter() said no.
  std::int64_t refused() const {
    const std::lock_guard lock(mutex_);
    return refused_;
  }

 private:
  void leave(std::int64_t count) {
    const std::lock_guard lock(mutex_);
    taken_ -= count;
    if (taken_ == 0) changed_.notify_all();
  }

  const std::int64_t most_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t taken_ = 0;
  std::int64_t refused_ = 0;
  bool closed_ = false;
};

}  // namespace lanner::server
