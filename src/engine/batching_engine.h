#pragma once
// The engine: a thread that schedules, runs, and publishes, and a mailbox through which others reach it.

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/scheduler.h"
#include "engine/step_runner.h"
#include "lanner/engine.h"
#include "model/decoder.h"

namespace lanner {

/// What a running engine owns and works with.
struct EngineParts {
  std::unique_ptr<ops::Backend> backend;
  std::unique_ptr<model::Decoder> decoder;  // before the backend in destruction
  ops::KvCacheView cache;
  MemoryPlan plan;
  EngineOptions options;  // with session_len resolved
  SchedulerLimits limits;
};

class BatchingEngine final : public Engine {
 public:
  explicit BatchingEngine(EngineParts parts);
  ~BatchingEngine() override;

  Result<RequestId> submit(Request request) override;
  void cancel(RequestId id) override;
  MemoryPlan memory_plan() const override { return parts_.plan; }
  EngineStats stats() const override;
  std::int32_t session_len() const override { return parts_.options.session_len; }
  std::int32_t vocab_size() const override { return static_cast<std::int32_t>(parts_.decoder->spec().vocab); }

 private:
  void loop();
  /// Takes what came in since; waits for it when there is nothing to do. False: shut down.
  bool receive();
  void start(const std::shared_ptr<RequestState>& request);
  /// Puts the planned step to work, or answers for a device that does not take it, and returns false.
  bool run(const Scheduler::Step& step);
  /// Takes the results of steps that are due, or, with `all`, of those under way.
  void collect(bool all);
  /// A step was not begun for want of the device's memory: it is tried again, soon with fewer sequences.
  void answer_shortage(const Status& status);
  /// The device has failed: nothing that was asked of it will come.
  void end_all(const Status& status);
  void tell(std::string_view text);
  void finish_all(const RequestState& request, FinishReason reason, const Status& status);
  void finish(Sequence& sequence, FinishReason reason, Status status);
  void send_final(const RequestState& request);
  /// It no longer counts against max_queue.
  void leave_queue(RequestState& request);
  void publish_stats();

  EngineParts parts_;
  KvBlocks blocks_;
  Scheduler scheduler_;
  StepRunner runner_;
  std::unordered_map<RequestId, std::shared_ptr<RequestState>> requests_;  // not ended; the engine thread's
  std::int64_t steps_ = 0;
  std::int64_t corrupted_ = 0;
  std::int64_t failed_steps_ = 0;
  std::size_t decoding_ = 0;  // sequences of the last step, if it had no prompt's tokens
  std::int64_t decode_steps_ = 0;
  std::chrono::steady_clock::duration decode_host_{};
  bool failing_ = false;  // since the last step that came to something
  int shortages_ = 0;     // steps in a row that the device had no memory for
  int good_steps_ = 0;    // since one, or since one more sequence was let in again

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  // Under mutex_:
  std::vector<std::shared_ptr<RequestState>> arrivals_;
  std::vector<RequestId> cancels_;
  RequestId last_id_ = 0;
  std::int32_t queued_ = 0;  // requests of which no choice has been admitted
  EngineStats stats_;
  bool stopping_ = false;

  std::thread thread_;  // last: it uses all of the above
};

/// What submit() refuses before anything is queued. `blocks` is the size of the KV cache.
Status check_request(const Request& request, std::int32_t vocab, std::int32_t session_len, std::int64_t blocks);

}  // namespace lanner
