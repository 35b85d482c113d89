#include "server/answer_task.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/generation_request.h"

namespace lanner::server {
namespace {

using Clock = std::chrono::steady_clock;

/// What a stream may have ready that its reader has not taken: this, or more where it has very many choices, each of
/// which may come with a chunk in one step of the engine.
constexpr std::size_t kMaxPendingBytes = 256 << 10;
constexpr std::size_t kMaxPendingBytesOfChoice = 4 << 10;
/// What an answer that is not streamed may keep until its end: tokens, and alternatives to them.
constexpr std::int64_t kMaxKeptTokens = 1 << 24;
constexpr std::int64_t kMaxAnswers = 1'024;  // of one request
/// What is formatted at once on the thread that serves all connections: events of a stream go in pieces of this, and a
/// whole answer with more tokens and alternatives is written by another thread.
constexpr std::size_t kMaxPieceBytes = 64 << 10;
constexpr std::int64_t kManyTokens = 4'096;

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

/// What a chunk keeps in memory, about.
std::size_t weight(const Chunk& chunk) {
  std::size_t bytes = sizeof(Chunk) + chunk.text.size() + chunk.token_ids.size() * sizeof(std::int32_t);
  for (const TokenLogprobs& token : chunk.logprobs) bytes += sizeof(token) + token.top.size() * sizeof(TokenLogprob);
  return bytes;
}

Ending ending_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return Ending::kStop;
    case FinishReason::kLength: return Ending::kLength;
    case FinishReason::kAbort: return Ending::kAbort;
    case FinishReason::kError: return Ending::kError;
  }
  return Ending::kError;
}

class AnswerTask final : public LateAnswer, public std::enable_shared_from_this<AnswerTask> {
 public:
  AnswerTask(Context& context, AnswerPlan plan, Limits::Place place)
      : context_(context),
        plan_(std::move(plan)),
        n_(static_cast<std::size_t>(plan_.requests.front().config.n)),
        requests_(plan_.requests.size()),
        max_pending_bytes_(std::max(kMaxPendingBytes, n_ * requests_ * kMaxPendingBytesOfChoice)),
        begin_(Clock::now()),
        unfinished_(requests_),
        place_(std::move(place)),
        last_token_(n_ * requests_) {
    answer_.choices.resize(n_ * requests_);
  }

  /// A refusal of one request stops those before it.
  Status submit() {
    context_.running.add(this, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->cancel_requests();
    });
    for (std::size_t i = 0; i < requests_; ++i) {
      const Result<RequestId> id =
          context_.pipeline.submit(std::move(plan_.requests[i]),
                                   [self = shared_from_this(), i](Chunk chunk) { self->push(i, std::move(chunk)); });
      if (!id.ok()) {
        give_up(requests_ - i);
        return id.status();
      }
      const std::lock_guard lock(mutex_);
      ids_.push_back(*id);
    }
    if (plan_.on_begun) plan_.on_begun(ids_);
    return {};
  }

  void start(std::function<void()> wake) override {
    const std::lock_guard lock(mutex_);
    wake_ = std::move(wake);
    awake_ = false;
    if (!pending_.empty()) wake_reader();
  }

  Piece take() override {
    bool too_slow = false;
    {
      const std::lock_guard lock(mutex_);
      if (next_ == taken_.size()) {
        taken_.clear();
        next_ = 0;
        taken_.swap(pending_);
        pending_bytes_ = 0;
      }
      awake_ = false;
      too_slow = too_slow_;
    }
    Piece piece;
    if (plan_.stream && !begun_) plan_.format->begin(answer_.choices.size(), piece.bytes);
    begun_ = true;
    // A rest is taken by the next call, which follows wherever there are bytes.
    while (next_ < taken_.size() && piece.bytes.size() < kMaxPieceBytes) read(taken_[next_++], piece.bytes);
    piece.done = too_slow || finals_ == requests_;
    if (!piece.done || !plan_.stream) return piece;
    if (too_slow) failure_ = resource_exhausted("the reader of this stream is too slow");
    if (failure_.ok()) {
      plan_.format->end(answer_, piece.bytes);
    } else {
      plan_.format->fail(refusal_of(failure_), piece.bytes);
    }
    return piece;
  }

  bool streams() const override { return plan_.stream; }
  bool reply_takes_long() const override { return kept_tokens_ > kManyTokens; }

  HttpReply reply() override {
    if (!failure_.ok()) return plan_.format->refuse(refusal_of(failure_));
    return plan_.format->whole(answer_);
  }

  void cancel() override {
    {
      const std::lock_guard lock(mutex_);
      drop();
    }
    cancel_requests();
  }

 private:
  struct Pending {
    std::size_t request;
    Chunk chunk;
  };

  // Engine's thread.

  void push(std::size_t request, Chunk chunk) {
    if (plan_.tap) plan_.tap(chunk);
    const bool final = chunk.final;
    const RequestId id = chunk.request;
    bool cancel = false;
    observe(request, chunk);
    const bool last = final && one_less();
    // Before the reader is told: a client that has its whole answer may come back at once, and its place must be free.
    if (last) settle();
    {
      const std::lock_guard lock(mutex_);
      if (!dropped_) {
        pending_bytes_ += weight(chunk);
        pending_.push_back({request, std::move(chunk)});
        wake_reader();
        if (plan_.stream && !last && pending_bytes_ > max_pending_bytes_) {
          too_slow_ = true;
          drop();
        }
      }
      cancel = dropped_ && !final;
    }
    if (cancel) context_.pipeline.cancel(id);
  }

  /// A request has ended. Whether it was the last.
  bool one_less() {
    const std::lock_guard lock(mutex_);
    return --unfinished_ == 0;
  }

  void observe(std::size_t request, const Chunk& chunk) {
    Metrics& metrics = context_.metrics;
    if (chunk.final) {
      metrics.request_prompt_tokens.observe(chunk.prompt_tokens);
      metrics.request_generation_tokens.observe(chunk.generated_tokens);
      for (const FinishReason reason : chunk.reasons) metrics.request_ended(ending_of(reason));
    }
    if (chunk.token_ids.empty()) return;
    const Clock::time_point now = Clock::now();
    Clock::time_point& last = last_token_[request * n_ + static_cast<std::size_t>(chunk.choice)];
    if (last != Clock::time_point()) {
      metrics.inter_token_latency_seconds.observe(seconds(now - last));
    } else if (!std::exchange(first_token_, true)) {
      metrics.time_to_first_token_seconds.observe(seconds(now - begin_));
    }
    last = now;
  }

  /// The last chunk of the last request has come.
  void settle() {
    context_.metrics.e2e_request_latency_seconds.observe(seconds(Clock::now() - begin_));
    context_.running.remove(this);
    place_.reset();
  }

  // Under the mutex.

  void wake_reader() {
    if (!wake_ || std::exchange(awake_, true)) return;
    wake_();  // it only leaves a note for another thread
  }

  void drop() {
    dropped_ = true;
    pending_.clear();
    wake_ = nullptr;
  }

  // Any thread.

  void cancel_requests() {
    std::vector<RequestId> ids;
    {
      const std::lock_guard lock(mutex_);
      ids = ids_;
    }
    for (const RequestId id : ids) context_.pipeline.cancel(id);
  }

  /// `count` requests were never accepted.
  void give_up(std::size_t count) {
    bool last = false;
    {
      const std::lock_guard lock(mutex_);
      drop();
      unfinished_ -= count;
      last = unfinished_ == 0;
    }
    if (last) {
      settle();
    } else {
      cancel_requests();
    }
  }

  // Server's thread.

  void read(const Pending& one, std::string& out) {
    const Chunk& chunk = one.chunk;
    const std::size_t first = one.request * n_;
    if (chunk.final) {
      ++finals_;
      for (std::size_t i = 0; i < n_ && i < chunk.reasons.size(); ++i) {
        answer_.choices[first + i].reason = chunk.reasons[i];
        if (i < chunk.stops.size()) answer_.choices[first + i].stop = chunk.stops[i];
      }
      answer_.counts.prompt += chunk.prompt_tokens;
      answer_.counts.cached += chunk.cached_tokens;
      answer_.counts.generated += chunk.generated_tokens;
      if (failure_.ok()) failure_ = chunk.status;
      return;
    }
    const std::size_t choice = first + static_cast<std::size_t>(chunk.choice);
    if (plan_.stream) {
      plan_.format->piece(choice, chunk, out);
      return;
    }
    kept_tokens_ += static_cast<std::int64_t>(chunk.token_ids.size());
    for (const TokenLogprobs& token : chunk.logprobs) kept_tokens_ += static_cast<std::int64_t>(token.top.size());
    ChoiceSoFar& so_far = answer_.choices[choice];
    so_far.text += chunk.text;
    so_far.token_ids.insert(so_far.token_ids.end(), chunk.token_ids.begin(), chunk.token_ids.end());
    so_far.logprobs.insert(so_far.logprobs.end(), chunk.logprobs.begin(), chunk.logprobs.end());
  }

  Context& context_;
  AnswerPlan plan_;
  const std::size_t n_;
  const std::size_t requests_;
  const std::size_t max_pending_bytes_;
  const Clock::time_point begin_;

  std::mutex mutex_;
  // Under it:
  std::function<void()> wake_;
  std::vector<Pending> pending_;
  std::size_t pending_bytes_ = 0;
  std::vector<RequestId> ids_;
  std::size_t unfinished_ = 0;
  bool awake_ = false;     // wake_ was called and take() not since
  bool dropped_ = false;   // nobody takes any more
  bool too_slow_ = false;  // the reader

  // The engine's thread's, once submit() has returned:
  std::optional<Limits::Place> place_;
  std::vector<Clock::time_point> last_token_;  // (requests * n)
  bool first_token_ = false;

  // The server's thread's:
  std::vector<Pending> taken_;
  std::size_t next_ = 0;  // of them
  AnswerSoFar answer_;
  std::int64_t kept_tokens_ = 0;  // in it, with their alternatives
  Status failure_;
  std::size_t finals_ = 0;
  bool begun_ = false;
};

std::optional<Refusal> check_kept_tokens(const AnswerPlan& plan, std::int64_t answers, std::int32_t session_len) {
  if (plan.stream) return std::nullopt;
  const GenerationConfig& config = plan.requests.front().config;
  const std::int64_t longest = std::min(config.max_new_tokens, session_len);
  const std::int64_t each = 1 + std::max<std::int64_t>(config.logprobs, 0);
  if (answers * each * longest <= kMaxKeptTokens) return std::nullopt;  // 1,024 * 21 * 2^31 at most
  return bad_field("n",
                   fmt::format("n times the prompts, times max_tokens, times 1 + top_logprobs must not be more than "
                               "{} unless the answer is streamed",
                               kMaxKeptTokens));
}

}  // namespace

const char* reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kAbort: return "abort";
    case FinishReason::kError: return "error";
  }
  return "error";
}

HttpReply answer_with(Context& context, AnswerPlan plan) {
  const std::int64_t answers = static_cast<std::int64_t>(plan.requests.size()) * plan.requests.front().config.n;
  if (answers > kMaxAnswers) {
    return to_reply(bad_field("n", fmt::format("n times the prompts must not be more than {}", kMaxAnswers)));
  }
  const std::int32_t session_len = context.pipeline.engine().session_len();
  if (const auto refusal = check_kept_tokens(plan, answers, session_len)) return to_reply(*refusal);
  for (const GenerationRequest& request : plan.requests) {
    if (const auto refusal = check_size(request, session_len)) return to_reply(*refusal);
  }
  std::optional<Limits::Place> place = context.limits.enter(answers);
  if (!place) return to_reply(turned_away(context.limits.closed()));
  const bool stream = plan.stream;
  const auto task = std::make_shared<AnswerTask>(context, std::move(plan), *std::move(place));
  const Status status = task->submit();
  if (!status.ok()) return to_reply(refusal_of(status));
  HttpReply reply;
  if (stream) reply.content_type = "text/event-stream";
  reply.late = task;
  return reply;
}

}  // namespace lanner::server
