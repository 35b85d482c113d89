#pragma once
// A fake Engine for tests of who reads logits: they come by a formula, delivered in chunks as a real engine's prefill
// does.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "lanner/engine.h"

namespace lanner {

/// Each request runs on a thread of its own and ends before the engine is destroyed.
class ChunkedLogitsEngine final : public Engine {
 public:
  /// The row of logits (vocab) after `position` of `prompt`.
  using Formula = std::function<std::vector<float>(const std::vector<std::int32_t>& prompt, std::int32_t position)>;

  ChunkedLogitsEngine(std::int32_t vocab, std::int32_t chunk_rows, Formula formula)
      : vocab_(vocab), chunk_rows_(chunk_rows), formula_(std::move(formula)) {}
  ~ChunkedLogitsEngine() override {
    for (std::thread& thread : threads_) thread.join();
  }

  Result<RequestId> submit(Request request) override {
    const std::lock_guard lock(mutex_);
    if (request.prompt.size() > 64) return Status(StatusCode::kTooLong, "the context holds 64 tokens");
    const RequestId id = threads_.size() + 1;
    wants_all_ = wants_all_ && request.wants.logits == RequestWants::Logits::kAll && request.max_new_tokens == 0;
    threads_.emplace_back([this, id, request = std::move(request)] { run(id, request); });
    return id;
  }
  void cancel(RequestId /*id*/) override {}
  MemoryPlan memory_plan() const override { return {}; }
  EngineStats stats() const override { return {}; }
  std::int32_t session_len() const override { return 64; }
  std::int32_t vocab_size() const override { return vocab_; }

  bool wants_all() const { return wants_all_; }
  Status failure;              // of every request
  std::int32_t lost_row = -1;  // not delivered

 private:
  void run(RequestId id, const Request& request) {
    const auto size = static_cast<std::int32_t>(request.prompt.size());
    for (std::int32_t first = 0; first < size; first += chunk_rows_) {
      Event event;
      event.kind = Event::Kind::kLogits;
      event.request = id;
      event.first_position = first;
      std::vector<float> rows;
      for (std::int32_t at = first; at < std::min(first + chunk_rows_, size); ++at) {
        if (at == lost_row) continue;
        const std::vector<float> row = formula_(request.prompt, at);
        rows.insert(rows.end(), row.begin(), row.end());
        ++event.rows;
      }
      event.values = rows;
      request.on_event(event);
    }
    Event event;
    event.kind = Event::Kind::kFinal;
    event.request = id;
    event.status = failure;
    event.reasons = {failure.ok() ? FinishReason::kLength : FinishReason::kError};
    request.on_event(event);
  }

  const std::int32_t vocab_;
  const std::int32_t chunk_rows_;
  const Formula formula_;
  bool wants_all_ = true;
  std::mutex mutex_;
  std::vector<std::thread> threads_;
};

}  // namespace lanner
