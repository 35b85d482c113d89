#include "engine/scripted_engine.h"

#include <algorithm>
#include <string>
#include <utility>

namespace lanner {

using Clock = std::chrono::steady_clock;
namespace {

constexpr std::size_t kHiddenSize = 8;

}  // namespace

ScriptedEngine::ScriptedEngine(Author author, const ScriptedEngineOptions& options)
    : author_(std::move(author)), options_(options), thread_([this] { loop(); }) {}

ScriptedEngine::~ScriptedEngine() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Status ScriptedEngine::check(const Request& request) const {
  if (request.prompt.empty()) return invalid_argument("the prompt is empty");
  if (request.n < 1 || request.n > 128) return invalid_argument("n must be 1 to 128");
  for (const std::int32_t id : request.prompt) {
    if (id < 0 || id >= options_.vocab_size) return invalid_argument("a prompt token is outside the vocabulary");
  }
  const auto length = static_cast<std::int64_t>(request.prompt.size());
  if (length >= options_.session_len) {
    return {StatusCode::kTooLong, "the prompt has " + std::to_string(length) + " tokens, the context holds " +
                                      std::to_string(options_.session_len)};
  }
  return {};
}

Result<RequestId> ScriptedEngine::submit(Request request) {
  LANNER_RETURN_IF_ERROR(check(request));
  auto running = std::make_shared<Running>();
  running->script = author_(request);
  LANNER_RETURN_IF_ERROR(running->script.refusal);
  const auto n = static_cast<std::size_t>(request.n);
  running->next.resize(n, 0);
  running->generated.resize(n, 0);
  running->ended.resize(n, false);
  running->reasons.resize(n, FinishReason::kAbort);
  running->due = Clock::now() + running->script.first_delay + running->script.delay;
  if (running->script.tokens.empty()) running->script.tokens.emplace_back();
  if (request.grammar != nullptr && running->script.walk) {
    for (std::size_t i = 0; i < n; ++i) {
      LANNER_ASSIGN_OR_RETURN(auto constraint, request.grammar->begin());
      running->walks.emplace_back(std::move(constraint), *running->script.walk, request.sampling.seed + i);
    }
  }
  Request copy = request;
  copy.on_event = nullptr;
  running->request = std::move(request);

  const std::lock_guard lock(mutex_);
  if (stopping_) return Status(StatusCode::kCancelled, "the engine is shutting down");
  if (options_.max_queue > 0 && running_.size() >= static_cast<std::size_t>(options_.max_queue)) {
    return resource_exhausted("the queue is full");
  }
  if (options_.remembers) seen_.push_back(std::move(copy));
  const RequestId id = ++last_id_;
  running_.emplace(id, std::move(running));
  changed_.notify_all();
  return id;
}

void ScriptedEngine::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  const auto found = running_.find(id);
  if (found == running_.end() || found->second->cancelled) return;
  found->second->cancelled = true;
  ++cancels_;
  changed_.notify_all();
}

MemoryPlan ScriptedEngine::memory_plan() const {
  return {.free_bytes = 1 << 30,
          .weight_bytes = 1 << 20,
          .workspace_bytes = 1 << 20,
          .kv_bytes = 1 << 24,
          .kv_blocks = 64,
          .kv_tokens = 4096};
}

EngineStats ScriptedEngine::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats;
  const auto all = static_cast<std::int32_t>(running_.size());
  stats.running = options_.max_batch > 0 ? std::min(all, options_.max_batch) : all;
  stats.waiting = all - stats.running;
  stats.generated_tokens = generated_;
  return stats;
}

std::vector<Request> ScriptedEngine::requests() const {
  const std::lock_guard lock(mutex_);
  return seen_;
}

std::int64_t ScriptedEngine::cancels() const {
  const std::lock_guard lock(mutex_);
  return cancels_;
}

void ScriptedEngine::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    if (running_.empty()) {
      if (stopping_) return;
      changed_.wait(lock);
      continue;
    }
    auto earliest = Clock::time_point::max();
    std::vector<std::pair<RequestId, std::shared_ptr<Running>>> ready;
    std::int32_t taken = 0;
    for (auto& [id, running] : running_) {
      if (stopping_) running->cancelled = true;
      if (options_.max_batch > 0 && ++taken > options_.max_batch && !running->cancelled) continue;
      earliest = std::min(earliest, running->due);
      if (running->cancelled || running->due <= Clock::now()) ready.emplace_back(id, running);
    }
    if (ready.empty()) {
      changed_.wait_until(lock, earliest);
      continue;
    }
    lock.unlock();  // callbacks may submit and cancel
    std::vector<RequestId> done;
    for (auto& [id, running] : ready) {
      if (step(id, *running)) done.push_back(id);
    }
    lock.lock();
    for (const RequestId id : done) running_.erase(id);
  }
}

/// One token of each choice; true when the request has got its final event.
bool ScriptedEngine::step(RequestId id, Running& running) {
  const Script& script = running.script;
  if (!std::exchange(running.began, true)) deliver_wanted(id, running);
  for (std::int32_t choice = 0; choice < running.request.n; ++choice) {
    const auto at = static_cast<std::size_t>(choice);
    {
      const std::lock_guard lock(mutex_);
      if (running.cancelled) break;
    }
    if (running.ended[at]) continue;
    if (script.fail_after >= 0 && running.total >= script.fail_after) {
      fail(id, running, script.failure);
      return true;
    }
    const Status delivered = deliver(id, running, choice);
    if (!delivered.ok()) {
      fail(id, running, delivered);
      return true;
    }
  }
  bool cancelled = false;
  {
    const std::lock_guard lock(mutex_);
    cancelled = running.cancelled;
  }
  if (cancelled || std::ranges::all_of(running.ended, [](bool ended) { return ended; })) {
    finish(id, running, {});
    return true;
  }
  running.due = Clock::now() + script.delay;
  return false;
}

void ScriptedEngine::deliver_wanted(RequestId id, const Running& running) const {
  const Request& request = running.request;
  if (!request.on_event) return;
  Event event;
  event.request = id;
  event.rows = 1;
  if (request.wants.hidden != RequestWants::Hidden::kNone) {
    const std::vector<float> hidden(kHiddenSize, 1.0F);
    event.kind = Event::Kind::kHidden;
    event.values = hidden;
    request.on_event(event);
  }
  if (request.wants.logits != RequestWants::Logits::kAll) return;
  const std::vector<float> logits(static_cast<std::size_t>(options_.vocab_size), 0.0F);
  event.kind = Event::Kind::kLogits;
  event.values = logits;
  for (std::size_t row = 0; row < request.prompt.size(); ++row) {
    event.first_position = static_cast<std::int32_t>(row);
    request.on_event(event);
  }
}

/// Nothing: it ends here.
Result<std::optional<std::int32_t>> ScriptedEngine::next_token(Running& running, std::size_t choice) {
  const Request& request = running.request;
  if (!running.walks.empty()) return running.walks[choice].next(request.stop_ids);
  const auto& tokens = running.script.tokens[std::min(choice, running.script.tokens.size() - 1)];
  std::size_t& next = running.next[choice];
  const auto stops = [&](std::int32_t token) {
    return std::ranges::find(request.stop_ids, token) != request.stop_ids.end();
  };
  while (next < tokens.size() && running.generated[choice] < request.min_new_tokens && stops(tokens[next])) ++next;
  if (next >= tokens.size() && running.script.endless) next = 0;
  if (next >= tokens.size()) return std::optional<std::int32_t>();
  return std::optional(tokens[next++]);
}

Status ScriptedEngine::deliver(RequestId id, Running& running, std::int32_t choice) {
  const Request& request = running.request;
  const auto at = static_cast<std::size_t>(choice);
  const auto stops = [&](std::int32_t token) {
    return std::ranges::find(request.stop_ids, token) != request.stop_ids.end();
  };
  const auto end = [&](FinishReason reason) {
    running.ended[at] = true;
    running.reasons[at] = reason;
  };
  const auto used = static_cast<std::int64_t>(request.prompt.size()) + running.generated[at];
  if (running.generated[at] >= request.max_new_tokens || used >= options_.session_len) {
    end(FinishReason::kLength);
    return {};
  }
  LANNER_ASSIGN_OR_RETURN(const std::optional<std::int32_t> token, next_token(running, at));
  if (!token) {
    end(FinishReason::kStop);
    return {};
  }
  Event event;
  event.request = id;
  event.choice = choice;
  event.token = *token;
  const auto& logprobs = running.script.logprobs;
  const auto total = static_cast<std::size_t>(running.total);
  event.logprob = total < logprobs.size() ? logprobs[total] : 0.0F;
  const TokenLogprob best{.token = event.token, .logprob = event.logprob};
  if (request.sampling.logprobs > 0) event.top = {&best, 1};
  ++running.generated[at];
  ++running.total;
  if (stops(event.token)) {
    end(FinishReason::kStop);
  } else if (running.generated[at] >= request.max_new_tokens) {
    end(FinishReason::kLength);
  }
  {
    const std::lock_guard lock(mutex_);
    ++generated_;
  }
  if (request.on_event) request.on_event(event);
  return {};
}

void ScriptedEngine::fail(RequestId id, Running& running, const Status& failure) {
  for (std::size_t i = 0; i < running.ended.size(); ++i) {
    if (!running.ended[i]) running.reasons[i] = FinishReason::kError;
  }
  finish(id, running, failure);
}

void ScriptedEngine::finish(RequestId id, Running& running, const Status& status) {
  Event event;
  event.kind = Event::Kind::kFinal;
  event.request = id;
  event.reasons = running.reasons;
  event.status = status;
  event.prompt_tokens = static_cast<std::int32_t>(running.request.prompt.size());
  event.cached_tokens = running.script.cached_tokens;
  event.generated_tokens = running.total;
  if (running.request.on_event) running.request.on_event(event);
  running.request.on_event = nullptr;  // nothing it holds outlives the request
}

}  // namespace lanner
