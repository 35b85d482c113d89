#include "server/sleeping_pipeline.h"

#include <malloc.h>

#include <chrono>
#include <thread>
#include <utility>

namespace lanner::server {
namespace {

constexpr RequestId kIdsOfOneTime = RequestId{1} << 48U;
constexpr std::chrono::milliseconds kPoll(1);

Status is_asleep() {
  return {StatusCode::kConflict, "the server is asleep and has given its memory back: POST /wakeup first"};
}

EngineStats sum_of(const EngineStats& past, EngineStats now) {
  now.steps += past.steps;
  now.prompt_tokens += past.prompt_tokens;
  now.cached_tokens += past.cached_tokens;
  now.generated_tokens += past.generated_tokens;
  now.preemptions += past.preemptions;
  now.corrupted_requests += past.corrupted_requests;
  now.decode_steps += past.decode_steps;
  now.decode_host_seconds += past.decode_host_seconds;
  now.progress += past.progress;
  now.failed_steps += past.failed_steps;
  return now;
}

}  // namespace

/// The engine of the pipeline that is awake.
class SleepingPipeline::EngineDoor final : public Engine {
 public:
  EngineDoor(const SleepingPipeline& owner, Engine& engine)
      : owner_(owner),
        plan_(engine.memory_plan()),
        session_len_(engine.session_len()),
        vocab_size_(engine.vocab_size()) {}

  Result<RequestId> submit(Request request) override {
    const Awake awake = owner_.awake();
    if (awake.pipeline == nullptr) return is_asleep();
    if (awake.first_id > 0 && request.on_event) {
      request.on_event = [first = awake.first_id, inner = std::move(request.on_event)](const Event& event) {
        Event renamed = event;
        renamed.request += first;
        inner(renamed);
      };
    }
    LANNER_ASSIGN_OR_RETURN(const RequestId id, awake.pipeline->engine().submit(std::move(request)));
    return id + awake.first_id;
  }
  void cancel(RequestId id) override {
    const Awake awake = owner_.awake();
    if (awake.pipeline != nullptr && id / kIdsOfOneTime == awake.first_id / kIdsOfOneTime) {
      awake.pipeline->engine().cancel(id - awake.first_id);
    }
  }
  MemoryPlan memory_plan() const override { return plan_; }
  EngineStats stats() const override {
    const Awake awake = owner_.awake();
    const std::lock_guard lock(mutex_);
    return sum_of(past_, awake.pipeline == nullptr ? EngineStats() : awake.pipeline->engine().stats());
  }
  std::int32_t session_len() const override { return session_len_; }
  std::int32_t vocab_size() const override { return vocab_size_; }

  /// The engine with these counters is gone.
  void add_past(const EngineStats& stats) {
    const std::lock_guard lock(mutex_);
    past_ = sum_of(past_, stats);
    past_.running = 0;
    past_.waiting = 0;
    past_.kv_blocks_used = 0;
    past_.kv_blocks_cached = 0;
  }

 private:
  const SleepingPipeline& owner_;
  const MemoryPlan plan_;
  const std::int32_t session_len_;
  const std::int32_t vocab_size_;
  mutable std::mutex mutex_;
  EngineStats past_;
};

SleepingPipeline::SleepingPipeline(std::unique_ptr<Pipeline> awake, Open open)
    : open_(std::move(open)),
      model_name_(awake->model_name()),
      architecture_(awake->architecture()),
      device_(awake->device()),
      engine_(std::make_unique<EngineDoor>(*this, awake->engine())),
      pipeline_(std::move(awake)) {}

SleepingPipeline::~SleepingPipeline() { sleep(); }

SleepingPipeline::Awake SleepingPipeline::awake() const {
  const std::lock_guard lock(mutex_);
  return {pipeline_, first_id_};
}

bool SleepingPipeline::asleep() const {
  const std::lock_guard lock(mutex_);
  return pipeline_ == nullptr;
}

void SleepingPipeline::sleep() {
  const std::lock_guard changing(changing_);
  std::shared_ptr<Pipeline> last;
  {
    const std::lock_guard lock(mutex_);
    last = std::exchange(pipeline_, nullptr);
  }
  if (last == nullptr) return;
  // Nobody gets hold of it any more. Who has it lets go soon, and the last to do so must not be the engine's thread,
  // which ends with it.
  while (last.use_count() > 1) std::this_thread::sleep_for(kPoll);
  engine_->add_past(last->engine().stats());
  last.reset();
  ::malloc_trim(0);  // the library keeps what was freed, and it is others that want it now
}

Status SleepingPipeline::wake() {
  const std::lock_guard changing(changing_);
  if (!asleep()) return {};
  LANNER_ASSIGN_OR_RETURN(std::unique_ptr<Pipeline> opened, open_());
  const std::lock_guard lock(mutex_);
  pipeline_ = std::move(opened);
  first_id_ += kIdsOfOneTime;
  return {};
}

Result<RequestId> SleepingPipeline::submit(GenerationRequest request, std::function<void(Chunk)> on_chunk) {
  const Awake awake = this->awake();
  if (awake.pipeline == nullptr) return is_asleep();
  if (awake.first_id > 0) {
    on_chunk = [first = awake.first_id, inner = std::move(on_chunk)](Chunk chunk) {
      chunk.request += first;
      inner(std::move(chunk));
    };
  }
  LANNER_ASSIGN_OR_RETURN(const RequestId id, awake.pipeline->submit(std::move(request), std::move(on_chunk)));
  return id + awake.first_id;
}

void SleepingPipeline::cancel(RequestId id) { engine_->cancel(id); }

Result<Response> SleepingPipeline::generate(GenerationRequest request) {
  const Awake awake = this->awake();
  if (awake.pipeline == nullptr) return is_asleep();
  return awake.pipeline->generate(std::move(request));
}

Result<std::shared_ptr<const TokenGrammar>> SleepingPipeline::compile_grammar(const GrammarSource& source) {
  const Awake awake = this->awake();
  if (awake.pipeline == nullptr) return is_asleep();
  return awake.pipeline->compile_grammar(source);
}

Result<std::string> SleepingPipeline::render(const GenerationRequest& request) const {
  const Awake awake = this->awake();
  if (awake.pipeline == nullptr) return is_asleep();
  return awake.pipeline->render(request);
}

Result<std::vector<std::int32_t>> SleepingPipeline::encode(std::string_view text, bool add_special_tokens) const {
  const Awake awake = this->awake();
  if (awake.pipeline == nullptr) return is_asleep();
  return awake.pipeline->encode(text, add_special_tokens);
}

Result<std::string> SleepingPipeline::decode(const std::vector<std::int32_t>& ids, bool skip_special_tokens) const {
  const Awake awake = this->awake();
  if (awake.pipeline == nullptr) return is_asleep();
  return awake.pipeline->decode(ids, skip_special_tokens);
}

std::string SleepingPipeline::token_bytes(std::int32_t id) const {
  const Awake awake = this->awake();
  return awake.pipeline == nullptr ? std::string() : awake.pipeline->token_bytes(id);
}

Result<std::vector<std::int32_t>> SleepingPipeline::prompt_tokens(const GenerationRequest& request) const {
  const Awake awake = this->awake();
  if (awake.pipeline == nullptr) return is_asleep();
  return awake.pipeline->prompt_tokens(request);
}

Engine& SleepingPipeline::engine() { return *engine_; }

std::string SleepingPipeline::loading() const {
  const Awake awake = this->awake();
  return awake.pipeline == nullptr ? std::string() : awake.pipeline->loading();
}

std::vector<std::string> SleepingPipeline::notes() const {
  const Awake awake = this->awake();
  return awake.pipeline == nullptr ? std::vector<std::string>() : awake.pipeline->notes();
}

}  // namespace lanner::server
