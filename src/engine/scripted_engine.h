#pragma once
// A fake behind the Engine interface for tests of what lies above it: no model, only a script for each request.
//
//   ScriptedEngine engine([](const Request&) { return Script{.tokens = {{5, 6, 7}}}; });
//   engine.submit({.prompt = {1}, .on_event = …});   // three kToken events, then kFinal with kStop
//
// It keeps the Engine's promises: stop ids end a choice (not before min_new_tokens), max_new_tokens and session_len
// cut it, cancel and destruction end it with kAbort, and each accepted request gets one final event. All events come
// from one thread, one token of each choice of each running request in turn. Wanted logits and hidden states come too,
// the same ones for all. Threads: as Engine.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/grammar_walk.h"
#include "lanner/engine.h"

namespace lanner {

/// What one request gets.
struct Script {
  Status refusal;                                 // not ok: submit() returns it and nothing else happens
  std::vector<std::vector<std::int32_t>> tokens;  // one list a choice; further choices repeat the last list
  std::vector<float> logprobs;                    // of every token in turn, when the request asks; else 0
  std::chrono::microseconds delay{0};             // before each token
  std::chrono::microseconds first_delay{0};       // before the first token, besides
  bool endless = false;                           // starts over at the end of a list
  std::int64_t fail_after = -1;                   // tokens of all choices, then kError with `failure`
  Status failure = internal_error("the script says so");
  std::int32_t cached_tokens = 0;  // what the final event reports
  /// A request with a grammar gets a walk through it, drawn by the request's seed, in place of `tokens`.
  std::optional<WalkOptions> walk;
};

struct ScriptedEngineOptions {
  std::int32_t session_len = 2048;
  std::int32_t vocab_size = 512;
  std::int32_t max_queue = 0;  // requests at once before kResourceExhausted; 0: no limit
  std::int32_t max_batch = 0;  // requests that get tokens at once, the oldest; the others wait. 0: no limit
  bool remembers = true;       // what requests() tells
};

class ScriptedEngine final : public Engine {
 public:
  using Author = std::function<Script(const Request&)>;

  explicit ScriptedEngine(Author author, const ScriptedEngineOptions& options = {});
  ~ScriptedEngine() override;

  Result<RequestId> submit(Request request) override;
  void cancel(RequestId id) override;
  MemoryPlan memory_plan() const override;
  EngineStats stats() const override;
  std::int32_t session_len() const override { return options_.session_len; }
  std::int32_t vocab_size() const override { return options_.vocab_size; }

  /// Every accepted request so far, without its callback.
  std::vector<Request> requests() const;
  /// How often cancel() was called for a request that had not ended.
  std::int64_t cancels() const;

 private:
  struct Running {
    Request request;
    Script script;
    std::chrono::steady_clock::time_point due;
    std::vector<std::size_t> next;        // (n) place in the script
    std::vector<std::int32_t> generated;  // (n)
    std::vector<bool> ended;              // (n)
    std::vector<FinishReason> reasons;    // (n)
    std::vector<GrammarWalk> walks;       // (n), or empty
    bool began = false;
    std::int32_t total = 0;
    bool cancelled = false;
  };

  Status check(const Request& request) const;
  void loop();
  bool step(RequestId id, Running& running);
  void deliver_wanted(RequestId id, const Running& running) const;
  Status deliver(RequestId id, Running& running, std::int32_t choice);
  static Result<std::optional<std::int32_t>> next_token(Running& running, std::size_t choice);
  void fail(RequestId id, Running& running, const Status& failure);
  void finish(RequestId id, Running& running, const Status& status);

  const Author author_;
  const ScriptedEngineOptions options_;
  mutable std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::map<RequestId, std::shared_ptr<Running>> running_;
  std::vector<Request> seen_;
  RequestId last_id_ = 0;
  std::int64_t cancels_ = 0;
  std::int64_t generated_ = 0;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace lanner
