#include "engine/constraint_masks.h"

#include <algorithm>

#include "core/processors.h"

namespace lanner {
namespace {

/// Beside those that compute on a CPU, or what feeds a GPU.
int thread_count() { return std::clamp(available_processors() / 4, 1, 4); }

}  // namespace

ConstraintMasks::ConstraintMasks(std::size_t vocab) : words_(ops::words_of_mask(vocab)) {
  const int threads = thread_count();
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { loop(); });
}

ConstraintMasks::~ConstraintMasks() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ConstraintMasks::begin(Sequence& sequence) {
  {
    const std::lock_guard lock(mutex_);
    work_.push_back(&sequence);
    ++unfinished_;
  }
  wake_.notify_one();
}

void ConstraintMasks::wait() {
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return unfinished_ == 0; });
}

void ConstraintMasks::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return stopping_ || !work_.empty(); });
    if (work_.empty()) return;
    Sequence& sequence = *work_.front();
    work_.pop_front();
    lock.unlock();
    compute(sequence, words_);
    lock.lock();
    if (--unfinished_ == 0) done_.notify_all();
  }
}

void ConstraintMasks::compute(Sequence& sequence, std::size_t words) {
  sequence.allowed.assign(words, 0);
  sequence.constraint_status = sequence.constraint->allowed(sequence.allowed);
  const auto& allowed = sequence.allowed;
  if (sequence.constraint_status.ok() && std::ranges::all_of(allowed, [](std::uint32_t word) { return word == 0; })) {
    sequence.constraint_status = internal_error("no token may come next");
  }
}

}  // namespace lanner
