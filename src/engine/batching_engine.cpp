#include "engine/batching_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/check.h"

namespace lanner {
namespace {

constexpr int kStepsToRecover = 64;  // for one more sequence, after memory was short
constexpr int kMostShortages = 12;   // in a row, before a sequence that runs alone ends with an error
constexpr std::chrono::milliseconds kShortagePause(20);

ops::SamplingParams sampling_of(const SamplingOptions& options) {
  return {.temperature = options.temperature,
          .top_k = options.top_k,
          .top_p = options.top_p,
          .min_p = options.min_p,
          .repetition_penalty = options.repetition_penalty,
          .presence_penalty = options.presence_penalty,
          .frequency_penalty = options.frequency_penalty,
          .seed = options.seed,
          .logprobs = options.logprobs};
}

bool wants_only_tokens(const Request& request) {
  return request.wants.logits == RequestWants::Logits::kNone && request.wants.hidden == RequestWants::Hidden::kNone &&
         request.grammar == nullptr && request.bad_words.empty() && request.min_new_tokens == 0;
}

}  // namespace

BatchingEngine::BatchingEngine(EngineParts parts)
    : parts_(std::move(parts)),
      blocks_(parts_.plan.kv_blocks, parts_.options.enable_prefix_caching),
      scheduler_(parts_.limits, blocks_),
      runner_(*parts_.decoder, *parts_.backend, parts_.cache),
      thread_([this] { loop(); }) {}

BatchingEngine::~BatchingEngine() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

Result<RequestId> BatchingEngine::submit(Request request) {
  LANNER_RETURN_IF_ERROR(check_request(request, vocab_size(), session_len(), parts_.plan.kv_blocks));
  auto state = std::make_shared<RequestState>();
  state->sampling = sampling_of(request.sampling);
  for (const auto& [token, bias] : request.sampling.logit_bias) state->logit_bias.push_back({token, bias});
  state->reasons.resize(static_cast<std::size_t>(request.n), FinishReason::kAbort);
  state->unfinished = request.n;
  for (std::int32_t choice = 0; request.grammar != nullptr && choice < request.n; ++choice) {
    LANNER_ASSIGN_OR_RETURN(state->constraints.emplace_back(), request.grammar->begin());
  }
  state->plain = wants_only_tokens(request);
  state->request = std::move(request);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return Status(StatusCode::kCancelled, "the engine is shutting down");
    if (parts_.options.max_queue > 0 && queued_ >= parts_.options.max_queue) {
      return resource_exhausted(fmt::format("the queue is full: {} requests wait", queued_));
    }
    ++queued_;
    state->id = ++last_id_;
    arrivals_.push_back(state);
  }
  wake_.notify_one();
  return state->id;
}

void BatchingEngine::cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    cancels_.push_back(id);
  }
  wake_.notify_one();
}

EngineStats BatchingEngine::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.progress = parts_.decoder->progress();
  return stats;
}

void BatchingEngine::loop() {
  parts_.backend->enter_thread();
  const auto own_time = [&] { return std::chrono::steady_clock::now().time_since_epoch() - runner_.waited(); };
  while (receive()) {
    const auto begin = own_time();
    const Scheduler::Step step = scheduler_.plan();
    const bool decode = !step.items.empty() && step.prompts == 0;
    if (step.prompts > 0) {
      for (const Scheduler::Item& item : step.items) leave_queue(*item.sequence->request);
    }
    if (!runner_.busy()) {  // what is under way may end it otherwise, or free blocks
      for (Sequence* stuck : step.stuck) finish(*stuck, FinishReason::kLength, {});
    }
    const bool started = !step.items.empty() && run(step);
    // Where the device answers late, this is the step before; the one just started goes on meanwhile.
    collect(step.items.empty());
    for (const std::string& note : parts_.backend->take_notes()) tell(note);
    const std::size_t decoding = decode && started ? step.items.size() : 0;
    if (decoding > 0 && decoding == decoding_) {
      ++decode_steps_;
      decode_host_ += own_time() - begin;
    }
    decoding_ = decoding;
    publish_stats();
  }
  while (!requests_.empty()) finish_all(*requests_.begin()->second, FinishReason::kAbort, {});
  publish_stats();
}

bool BatchingEngine::run(const Scheduler::Step& step) {
  const Status status = runner_.start(step);
  if (status.ok()) {
    ++steps_;
    shortages_ = 0;
    if (++good_steps_ == kStepsToRecover) {
      good_steps_ = 0;
      scheduler_.recover();
    }
    return true;
  }
  ++failed_steps_;
  good_steps_ = 0;
  if (status.code() != StatusCode::kResourceExhausted) {
    end_all(status);
    return false;
  }
  collect(true);  // so that nobody who gives way is still to be given something
  if (!failing_) answer_shortage(status);
  return false;
}

void BatchingEngine::collect(bool all) {
  while (runner_.due() || (all && runner_.busy())) {
    Result<std::vector<StepResult>> results = runner_.collect(scheduler_);
    if (!results.ok()) {
      ++failed_steps_;
      return end_all(results.status());
    }
    failing_ = false;
    for (StepResult& ended : *results) finish(*ended.sequence, ended.reason, std::move(ended.status));
  }
}

void BatchingEngine::answer_shortage(const Status& status) {
  ++shortages_;
  if (shortages_ == 1) return;  // the backend has made room
  const std::int64_t running = scheduler_.running();
  if (scheduler_.give_way()) {
    tell(
        fmt::format("no memory of the device for a step: {} of {} sequences wait until others have ended, prompts are "
                    "computed {} tokens at once",
                    running - scheduler_.running(), running, scheduler_.limits().max_rows));
  } else if (shortages_ > kMostShortages) {
    const Status final = with_context(status, "no memory of the device for a step of one sequence");
    tell(final.message());
    for (Sequence* sequence : scheduler_.all()) {
      if (sequence->state == SequenceState::kWaiting) continue;
      // All of it: its other choices would wait for this one's prompt.
      finish_all(*sequence->request, FinishReason::kError, final);
      break;
    }
    shortages_ = 0;
    return;
  }
  // Whoever takes the memory may give it back.
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, kShortagePause, [&] { return stopping_; });
}

void BatchingEngine::end_all(const Status& status) {
  if (!std::exchange(failing_, true)) {
    tell(fmt::format("{}: {} requests end with an error", status.message(), requests_.size()));
  }
  runner_.abandon();
  for (Sequence* sequence : scheduler_.all()) finish(*sequence, FinishReason::kError, status);
}

void BatchingEngine::tell(std::string_view text) {
  if (parts_.options.on_note) parts_.options.on_note(text);
}

bool BatchingEngine::receive() {
  std::vector<std::shared_ptr<RequestState>> arrivals;
  std::vector<RequestId> cancels;
  bool stopping = false;
  {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return stopping_ || !arrivals_.empty() || !cancels_.empty() || !scheduler_.idle(); });
    arrivals.swap(arrivals_);
    cancels.swap(cancels_);
    stopping = stopping_;
  }
  for (const auto& request : arrivals) start(request);
  for (const RequestId id : cancels) {
    const auto found = requests_.find(id);
    if (found != requests_.end()) finish_all(*found->second, FinishReason::kAbort, {});
  }
  if (!arrivals.empty() || !cancels.empty()) publish_stats();
  return !stopping;
}

void BatchingEngine::start(const std::shared_ptr<RequestState>& request) {
  requests_.emplace(request->id, request);
  for (std::int32_t choice = 0; choice < request->request.n; ++choice) {
    auto sequence = std::make_unique<Sequence>();
    sequence->request = request;
    sequence->choice = choice;
    sequence->tokens = request->request.prompt;
    sequence->most_tokens =
        std::min<std::int64_t>(sequence->size() + request->request.max_new_tokens, parts_.options.session_len);
    sequence->sampling = request->sampling;
    sequence->sampling.seed += static_cast<std::uint64_t>(choice) * 0x9E3779B97F4A7C15U;  // a stream of its own
    if (request->request.grammar != nullptr) {
      sequence->constraint = std::move(request->constraints[static_cast<std::size_t>(choice)]);
    }
    scheduler_.add(std::move(sequence));
  }
}

void BatchingEngine::finish_all(const RequestState& request, FinishReason reason, const Status& status) {
  for (Sequence* sequence : scheduler_.all()) {
    if (sequence->request.get() == &request) finish(*sequence, reason, status);
  }
}

void BatchingEngine::finish(Sequence& sequence, FinishReason reason, Status status) {
  runner_.forget(sequence);
  const std::unique_ptr<Sequence> removed = scheduler_.remove(sequence);
  removed->state = SequenceState::kFinished;
  const std::shared_ptr<RequestState> request = removed->request;
  request->reasons[static_cast<std::size_t>(removed->choice)] = reason;
  if (reason == FinishReason::kError) {
    if (request->status.ok()) ++corrupted_;  // once, however many choices
    request->status = std::move(status);
  }
  if (--request->unfinished > 0) return;
  requests_.erase(request->id);
  leave_queue(*request);
  send_final(*request);
}

void BatchingEngine::leave_queue(RequestState& request) {
  if (!request.queued) return;
  request.queued = false;
  const std::lock_guard lock(mutex_);
  --queued_;
}

void BatchingEngine::send_final(const RequestState& request) {
  if (!request.request.on_event) return;
  Event event;
  event.kind = Event::Kind::kFinal;
  event.request = request.id;
  event.reasons = request.reasons;
  event.status = request.status;
  event.prompt_tokens = static_cast<std::int32_t>(request.request.prompt.size());
  event.cached_tokens = request.cached_tokens;
  event.generated_tokens = request.generated_tokens;
  request.request.on_event(event);
}

void BatchingEngine::publish_stats() {
  const EngineStats stats{.running = static_cast<std::int32_t>(scheduler_.running()),
                          .waiting = static_cast<std::int32_t>(scheduler_.waiting()),
                          .kv_blocks_used = blocks_.used(),
                          .kv_blocks_cached = blocks_.cached(),
                          .steps = steps_,
                          .prompt_tokens = runner_.prompt_tokens(),
                          .cached_tokens = scheduler_.prefix_hits(),
                          .generated_tokens = runner_.generated_tokens(),
                          .preemptions = scheduler_.preemptions(),
                          .corrupted_requests = corrupted_,
                          .decode_steps = decode_steps_,
                          .decode_host_seconds = std::chrono::duration<double>(decode_host_).count(),
                          .failed_steps = failed_steps_};
  const std::lock_guard lock(mutex_);
  stats_ = stats;
}

}  // namespace lanner
