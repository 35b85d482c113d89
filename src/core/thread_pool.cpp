#include "core/thread_pool.h"

#include <fmt/format.h>
#include <sched.h>

#include <cerrno>
#include <exception>
#include <string>
#include <system_error>
#include <utility>

#include "core/check.h"
#include "core/processors.h"

namespace lanner {
namespace {

// About 50 us of polling on today's processors: longer than the gap between two operations of a step.
constexpr int kSpins = 1000;

inline void pause_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Returns when `value` is no longer `old`: spins first, then sleeps.
template <typename T>
void wait_for_change(const std::atomic<T>& value, T old) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause_processor();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

/// Why the threads of a pool cannot be pinned to these processors; empty where they can.
std::string why_not_pinned(int threads, const std::vector<int>& processors) {
  if (static_cast<int>(processors.size()) < threads) {
    return fmt::format("there are {} threads, but this process may use {} processors", threads, processors.size());
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  // The same set again: a sandbox may forbid it.
  if (::sched_getaffinity(0, sizeof(set), &set) != 0 || ::sched_setaffinity(0, sizeof(set), &set) != 0) {
    return fmt::format("the system does not allow it: {}", std::generic_category().message(errno));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<ThreadPool>> ThreadPool::create(int threads, bool pinned) {
  LANNER_CHECK(threads >= 1);
  std::unique_ptr<ThreadPool> pool(new ThreadPool(threads));
  if (pinned) {
    std::vector<int> processors = own_processors().ids;
    pool->pinning_problem_ = why_not_pinned(threads, processors);
    if (pool->pinning_problem_.empty()) pool->processors_ = std::move(processors);
  }
  try {
    pool->threads_.reserve(static_cast<std::size_t>(threads - 1));
    for (int index = 1; index < threads; ++index) {
      pool->threads_.emplace_back([self = pool.get(), index] { self->work(index); });
    }
  } catch (const std::exception& error) {  // system_error or bad_alloc; those that started end with the pool
    return resource_exhausted(
        fmt::format("thread {} of {} cannot be started: {}", pool->threads_.size() + 2, threads, error.what()));
  }
  return pool;
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(const Body& body) {
  body_ = &body;
  running_.store(size_ - 1, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  Worker worker(*this, 0);
  body(worker);
  for (int left = running_.load(std::memory_order_acquire); left != 0;
       left = running_.load(std::memory_order_acquire)) {
    wait_for_change(running_, left);
  }
}

void ThreadPool::pin(int index) const {
  if (processors_.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processors_[static_cast<std::size_t>(index)], &set);
  ::sched_setaffinity(0, sizeof(set), &set);  // a wish: without it the system chooses
}

void ThreadPool::work(int index) {
  pin(index);
  Worker worker(*this, index);
  std::uint32_t seen = 0;
  while (true) {
    wait_for_change(round_, seen);
    seen = round_.load(std::memory_order_acquire);
    if (stopping_) return;
    (*body_)(worker);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_all();
  }
}

void ThreadPool::wait_at_barrier() {
  const std::uint32_t passed = passed_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    passed_.fetch_add(1, std::memory_order_release);
    passed_.notify_all();
    return;
  }
  wait_for_change(passed_, passed);
}

}  // namespace lanner
