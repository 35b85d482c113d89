#pragma once
// The masks of a step's constrained rows, computed while the device computes the rows.
//
// Threads: begin() and wait() are the engine thread's; the work is done on a few others. They are made by whoever makes
// this, not by the engine's thread, which may be pinned, as threads that it made would be too. Between begin() and
// wait() a sequence's constraint, mask and status are theirs.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/sequence.h"

namespace lanner {

class ConstraintMasks {
 public:
  /// For a vocabulary of so many tokens.
  explicit ConstraintMasks(std::size_t vocab);
  ~ConstraintMasks();
  ConstraintMasks(const ConstraintMasks&) = delete;
  ConstraintMasks& operator=(const ConstraintMasks&) = delete;

  /// Fills `sequence.allowed`, or sets `sequence.constraint_status`; the sequence stays where it is until wait().
  void begin(Sequence& sequence);
  /// Until all that have begun are done.
  void wait();

 private:
  void loop();
  static void compute(Sequence& sequence, std::size_t words);

  const std::size_t words_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  // Under mutex_:
  std::deque<Sequence*> work_;
  std::size_t unfinished_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace lanner
