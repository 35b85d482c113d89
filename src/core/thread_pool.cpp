#include "core/thread_pool.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <string>

#include "core/check.h"

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

/// The first `count` processors that this process may use; none where it may use fewer.
std::vector<int> own_processors(int count) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) < count) return {};
  std::vector<int> processors;
  for (int cpu = 0; static_cast<int>(processors.size()) < count; ++cpu) {
    if (CPU_ISSET(cpu, &set)) processors.push_back(cpu);
  }
  return processors;
}

}  // namespace

Result<std::unique_ptr<ThreadPool>> ThreadPool::create(int threads, bool pinned) {
  LANNER_CHECK(threads >= 1);
  std::unique_ptr<ThreadPool> pool(new ThreadPool(threads));
  if (pinned) pool->processors_ = own_processors(threads);
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

int available_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int processors = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) processors = std::max(1, CPU_COUNT(&set));
  std::ifstream quota_file("/sys/fs/cgroup/cpu.max");  // "max 100000" or "150000 100000"
  std::string quota;
  double period = 0;
  if (quota_file >> quota >> period && quota != "max" && period > 0) {
    const double share = std::strtod(quota.c_str(), nullptr) / period;
    if (share > 0) processors = std::min(processors, static_cast<int>(std::ceil(share)));
  }
  return std::max(1, processors);
}

}  // namespace lanner
