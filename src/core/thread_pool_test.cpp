#include "core/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <memory>
#include <numeric>

#include "core/processors.h"

namespace lanner {
namespace {

// Fewer runs with sanitizers, which slow every meeting of threads down.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kRuns = 1000;
#else
constexpr int kRuns = 10000;
#endif

/// On the heap: g++ 12 does not align stack frames to 64 bytes where ASan looks for use after return
/// (https://gcc.gnu.org/bugzilla/show_bug.cgi?id=110027).
std::unique_ptr<ThreadPool> make_pool(int threads) { return *ThreadPool::create(threads); }

/// Each worker writes at its own place before a barrier and reads all places after it; sums show what was missed.
void sum_over_barriers(int threads, int runs) {
  const auto pool = make_pool(threads);
  ASSERT_EQ(pool->size(), threads);
  std::vector<std::int64_t> places(static_cast<std::size_t>(threads));  // plain memory: only barriers order it
  std::vector<std::int64_t> sums(static_cast<std::size_t>(threads));
  for (int run = 0; run < runs; ++run) {
    std::fill(sums.begin(), sums.end(), 0);
    pool->run([&](ThreadPool::Worker& worker) {
      const auto own = static_cast<std::size_t>(worker.index());
      for (int phase = 0; phase < 3; ++phase) {
        places[own] = run + phase * 7 + worker.index();
        worker.barrier();
        sums[own] += std::accumulate(places.begin(), places.end(), std::int64_t{0});
        if (phase < 2) worker.barrier();
      }
    });
    const std::int64_t expected = threads * (3L * run + 21) + 3L * (threads * (threads - 1) / 2);
    for (const std::int64_t sum : sums) ASSERT_EQ(sum, expected) << "run " << run << " of " << threads << " threads";
  }
}

TEST(ThreadPool, RunsAndBarriersOrderWhatWorkersWrite) {
  for (int threads = 1; threads <= 5; ++threads) {
    sum_over_barriers(threads, threads <= available_processors() ? kRuns : kRuns / 5);
  }
}

TEST(ThreadPool, TakesManyMoreThreadsThanProcessors) { sum_over_barriers(4 * available_processors() + 3, 50); }

TEST(ThreadPool, GivesEachWorkerItsIndexAndAnEvenShare) {
  for (int threads = 1; threads <= 5; ++threads) {
    const auto pool = make_pool(threads);
    for (const std::int64_t total : {0, 1, 2, 3, 4, 5, 17, 1000}) {
      std::vector<std::pair<std::int64_t, std::int64_t>> shares(static_cast<std::size_t>(threads), {-1, -1});
      pool->run([&](ThreadPool::Worker& worker) {
        ASSERT_EQ(worker.count(), threads);
        shares[static_cast<std::size_t>(worker.index())] = worker.share(total);
      });
      std::int64_t end = 0;
      for (const auto& [from, to] : shares) {
        EXPECT_EQ(from, end);
        EXPECT_LE(to - from, total / threads + 1);
        EXPECT_GE(to - from, total / threads);
        end = to;
      }
      EXPECT_EQ(end, total);
    }
  }
}

TEST(ThreadPool, RunReturnsOnlyWhenTheSlowestIsDone) {
  const auto pool = make_pool(3);
  std::atomic<int> done{0};
  pool->run([&](ThreadPool::Worker& worker) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20 * worker.index()));
    done.fetch_add(1);
  });
  EXPECT_EQ(done.load(), 3);
}

TEST(ThreadPool, WakesAfterItHasGoneToSleep) {
  const auto pool = make_pool(3);
  for (int run = 0; run < 5; ++run) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::atomic<int> done{0};
    pool->run([&](ThreadPool::Worker& worker) {
      if (worker.index() == run % 3) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      worker.barrier();
      done.fetch_add(1);
    });
    EXPECT_EQ(done.load(), 3);
  }
}

TEST(ThreadPool, PinsEachThreadToAProcessorOfItsOwn) {
  const int processors = available_processors();
  std::thread caller([&] {  // a thread of its own, whose pinning ends with it
    const auto pool = std::move(*ThreadPool::create(processors, true));
    pool->pin_caller();
    std::vector<int> seen(static_cast<std::size_t>(processors), -1);
    pool->run([&](ThreadPool::Worker& worker) {
      cpu_set_t set;
      CPU_ZERO(&set);
      ASSERT_EQ(::sched_getaffinity(0, sizeof(set), &set), 0);
      ASSERT_EQ(CPU_COUNT(&set), 1);
      seen[static_cast<std::size_t>(worker.index())] = ::sched_getcpu();
    });
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(std::unique(seen.begin(), seen.end()), seen.end());
  });
  caller.join();
}

TEST(ThreadPool, IsNotPinnedWhereProcessorsAreTooFew) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ASSERT_EQ(::sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  const auto pool = std::move(*ThreadPool::create(CPU_COUNT(&allowed) + 1, true));
  std::atomic<int> free{0};
  pool->run([&](ThreadPool::Worker&) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (::sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_EQUAL(&set, &allowed)) free.fetch_add(1);
  });
  EXPECT_EQ(free.load(), pool->size());
  EXPECT_NE(pool->pinning_problem().find("but this process may use"), std::string::npos) << pool->pinning_problem();
  EXPECT_TRUE((*ThreadPool::create(1, true))->pinning_problem().empty());
  EXPECT_TRUE((*ThreadPool::create(CPU_COUNT(&allowed) + 1, false))->pinning_problem().empty());
}

TEST(ThreadPool, UsesNoProcessorWhileItIsIdle) {
  const auto pool = make_pool(4);
  pool->run([](ThreadPool::Worker&) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const double seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(seconds, 0.1);
}

TEST(ThreadPool, MayBeMadeAndEndedWithoutARun) {
  for (int i = 0; i < 50; ++i) make_pool(1 + i % 5);
}

}  // namespace
}  // namespace lanner
