#include "engine/run_requests.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

namespace lanner {
namespace {

constexpr std::chrono::milliseconds kPoll(20);

/// Counts final events; lives on the stack of run_requests(), which waits for all of them.
class Ending {
 public:
  void expect_one_more() {
    const std::lock_guard lock(mutex_);
    ++open_;
  }
  void fail(const Status& status) {
    const std::lock_guard lock(mutex_);
    if (status_.ok()) status_ = status;
  }
  void end_one() {
    // Notify under the lock: once the waiter sees zero it destroys this object.
    const std::lock_guard lock(mutex_);
    if (--open_ == 0) changed_.notify_all();  // to be woken by each of many would cost their engine's thread much
  }
  /// Whether all have ended by then.
  bool wait_for(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, time, [this] { return open_ == 0; });
  }
  Status wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_ == 0; });
    return status_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int open_ = 0;
  Status status_;
};

Status status_of(const Event& final_event) {
  if (!final_event.status.ok()) return final_event.status;
  const auto& reasons = final_event.reasons;
  if (std::find(reasons.begin(), reasons.end(), FinishReason::kAbort) != reasons.end()) {
    return {StatusCode::kCancelled, "the request was aborted"};
  }
  return {};
}

}  // namespace

Status run_requests(Engine& engine, std::vector<Request> requests, const Unwanted& unwanted) {
  Ending ending;
  std::vector<RequestId> accepted;
  for (Request& request : requests) {
    request.on_event = [&ending, inner = std::move(request.on_event)](const Event& event) {
      if (inner) inner(event);
      if (event.kind != Event::Kind::kFinal) return;
      ending.fail(status_of(event));
      ending.end_one();
    };
    ending.expect_one_more();
    const Result<RequestId> id = engine.submit(std::move(request));
    if (!id.ok()) {
      ending.fail(id.status());
      ending.end_one();
      for (const RequestId other : accepted) engine.cancel(other);
      break;
    }
    accepted.push_back(*id);
  }
  bool cancelled = false;
  while (unwanted && !cancelled && !ending.wait_for(kPoll)) {
    cancelled = unwanted();
    for (std::size_t i = 0; cancelled && i < accepted.size(); ++i) engine.cancel(accepted[i]);
  }
  return ending.wait();
}

}  // namespace lanner
