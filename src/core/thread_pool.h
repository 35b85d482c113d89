#pragma once
// The threads that run a CPU operation together.
//
// run() hands one body to every worker, the caller being worker 0, and returns when all are done. Between calls
// and at barriers a worker spins for some tens of microseconds, since a decode step has a hundred such meetings,
// and then sleeps in the kernel, so that an idle program uses no processor and more threads than cores do no harm.
//
//   LANNER_ASSIGN_OR_RETURN(const auto pool, ThreadPool::create(8));
//   pool->run([&](ThreadPool::Worker& worker) {
//     first_half(worker.index(), worker.count());
//     worker.barrier();
//     second_half(worker.index(), worker.count());
//   });
//
// One thread at a time may call run(). Bodies must not throw.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "lanner/status.h"

namespace lanner {

class ThreadPool {
 public:
  class Worker {
   public:
    Worker(ThreadPool& pool, int index) : pool_(pool), index_(index) {}
    int index() const { return index_; }
    int count() const { return pool_.size(); }
    /// Waits until every worker of this run has come here.
    void barrier() { pool_.wait_at_barrier(); }
    /// This worker's share [begin, end) of `total` items, cut into equal runs of items.
    std::pair<std::int64_t, std::int64_t> share(std::int64_t total) const {
      return {total * index_ / count(), total * (index_ + 1) / count()};
    }

   private:
    ThreadPool& pool_;
    int index_;
  };
  using Body = std::function<void(Worker&)>;

  /// threads >= 1, the caller of run() included. kResourceExhausted where the system starts no more. `pinned`: each
  /// thread stays on a processor of its own, in the order of own_processors(); the caller's must ask for it. Where that
  /// cannot be, none is pinned, and pinning_problem() says why.
  static Result<std::unique_ptr<ThreadPool>> create(int threads, bool pinned = false);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }
  /// Why threads that should be pinned are not; else empty.
  const std::string& pinning_problem() const { return pinning_problem_; }
  void run(const Body& body);
  /// Pins the calling thread, which is to call run(), if the pool's are. Threads that it starts later inherit that.
  void pin_caller() const { pin(0); }

 private:
  explicit ThreadPool(int threads) : size_(threads) {}
  /// Pins the calling thread to the worker's processor.
  void pin(int index) const;
  void work(int index);
  void wait_at_barrier();

  const int size_;
  std::vector<int> processors_;  // of the workers, and maybe more; empty: they are not pinned
  std::string pinning_problem_;
  std::vector<std::thread> threads_;
  const Body* body_ = nullptr;
  bool stopping_ = false;
  // Each on its own cache line: all workers poll them.
  alignas(64) std::atomic<std::uint32_t> round_{0};   // counts run() calls; a change starts the workers
  alignas(64) std::atomic<int> running_{0};           // workers, other than the caller, still inside the body
  alignas(64) std::atomic<int> arrived_{0};           // workers at the current barrier
  alignas(64) std::atomic<std::uint32_t> passed_{0};  // counts barriers; a change lets them through
};

}  // namespace lanner
