#pragma once
// The engine: a thread that schedules, runs, and publishes, and a mailbox through which others reach it.

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
  void finish_all(RequestState& request);
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
