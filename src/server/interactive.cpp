// POST /v1/chat/interactive: conversations that the server keeps.

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/openai_answer.h"

namespace lanner::server {
namespace {

constexpr std::int64_t kDefaultNewTokens = 512;

struct TurnCounts {
  std::int64_t input = 0;    // tokens of the new messages
  std::int64_t history = 0;  // of what went before
};

Json turn_json(std::string_view text, std::int64_t tokens, const TurnCounts& counts, const char* reason) {
  return {{"text", text},
          {"tokens", tokens},
          {"input_tokens", counts.input},
          {"history_tokens", counts.history},
          {"finish_reason", reason == nullptr ? Json() : Json(reason)}};
}

/// One JSON object a line, without what Server-Sent Events put around it: so LMDeploy's clients read it.
class InteractiveFormat final : public AnswerFormat {
 public:
  explicit InteractiveFormat(TurnCounts counts) : counts_(counts) {}

  void begin(std::size_t /*choices*/, std::string& /*out*/) override {}
  void piece(std::size_t /*choice*/, const Chunk& chunk, std::string& out) override {
    tokens_ += static_cast<std::int64_t>(chunk.token_ids.size());
    if (!chunk.text.empty()) out += to_text(turn_json(chunk.text, tokens_, counts_, nullptr)) + "\n";
  }
  void end(const AnswerSoFar& answer, std::string& out) override {
    out += to_text(turn_json("", answer.counts.generated, counts_, reason_name(answer.choices.front().reason))) + "\n";
  }
  void fail(const Refusal& refusal, std::string& out) override { out += to_text(error_body(refusal)) + "\n"; }
  HttpReply whole(const AnswerSoFar& answer) override {
    const ChoiceSoFar& choice = answer.choices.front();
    return json_reply(turn_json(choice.text, answer.counts.generated, counts_, reason_name(choice.reason)));
  }

 private:
  const TurnCounts counts_;
  std::int64_t tokens_ = 0;
};

/// An answer without generating.
HttpReply empty_turn(bool stream, const TurnCounts& counts, const char* reason) {
  HttpReply reply = json_reply(turn_json("", 0, counts, reason));
  if (stream) {
    reply.content_type = "text/event-stream";
    reply.body += "\n";
  }
  return reply;
}

/// What a session does with an answer: it learns it, or forgets that it was asked. On the engine's thread.
class TurnKeeper {
 public:
  TurnKeeper(Sessions& sessions, Sessions::TurnId id, std::vector<Message> messages, bool go_on)
      : sessions_(sessions), id_(id), messages_(std::move(messages)), go_on_(go_on) {}

  void take(const Chunk& chunk) {
    text_ += chunk.text;
    if (!chunk.final) return;
    const FinishReason reason = chunk.reasons.empty() ? FinishReason::kError : chunk.reasons.front();
    if (!go_on_) {
      sessions_.end(id_);
    } else if (reason == FinishReason::kStop || reason == FinishReason::kLength) {
      messages_.push_back({"assistant", std::move(text_)});
      sessions_.keep(id_, std::move(messages_), std::int64_t{chunk.prompt_tokens} + chunk.generated_tokens,
                     Sessions::Clock::now());
    } else {
      sessions_.release(id_, Sessions::Clock::now());
    }
  }

 private:
  Sessions& sessions_;
  const Sessions::TurnId id_;
  std::vector<Message> messages_;
  const bool go_on_;
  std::string text_;
};

void cancel_all(Context& context, const std::vector<RequestId>& requests) {
  for (const RequestId id : requests) context.pipeline.cancel(id);
}

HttpReply cancel_turn(Context& context, std::int64_t session) {
  if (session < 0) return to_reply(bad_field("session_id", "cancel needs the session's id"));
  cancel_all(context, context.sessions.requests_of(static_cast<std::uint64_t>(session)));
  return empty_turn(false, {}, "stop");
}

Refusal no_room() {
  return {.status = 503,
          .type = error_type(503),
          .message = "the sessions hold too much at once; try again later",
          .code = "sessions_full",
          .headers = {{"Retry-After", "5"}}};
}

struct InteractiveRequest {
  std::vector<Message> fresh;
  GenerationConfig config;
  bool go_on = false;
  bool stream = false;
};

/// The turn has begun; whatever way it ends, the session is told.
HttpReply answer_turn(Context& context, Sessions::Turn turn, InteractiveRequest asked) {
  const auto give_back = [&] { context.sessions.release(turn.id, Sessions::Clock::now()); };
  std::vector<Message> messages = std::move(turn.history);
  messages.insert(messages.end(), asked.fresh.begin(), asked.fresh.end());
  if (messages.empty()) {
    context.sessions.end(turn.id);
    return empty_turn(asked.stream, {}, "stop");
  }
  GenerationRequest request;
  request.messages = messages;
  const std::int32_t session_len = context.pipeline.engine().session_len();
  if (check_size(request, session_len)) {
    give_back();
    return empty_turn(asked.stream, {.history = turn.history_tokens}, "length");
  }
  if (!context.sessions.hold(turn.id, messages)) {
    give_back();
    return to_reply(no_room());
  }
  auto ids = context.pipeline.prompt_tokens(request);
  if (!ids.ok()) {
    give_back();
    return to_reply(refusal_of(ids.status()));
  }
  const auto prompt = static_cast<std::int64_t>(ids->size());
  const TurnCounts counts{.input = std::max<std::int64_t>(prompt - turn.history_tokens, 0),
                          .history = turn.history_tokens};
  if (prompt >= session_len) {
    give_back();
    return empty_turn(asked.stream, counts, "length");
  }
  if (asked.config.max_new_tokens == 0) {  // only to be remembered, or forgotten
    if (asked.go_on) {
      context.sessions.keep(turn.id, std::move(messages), prompt, Sessions::Clock::now());
    } else {
      context.sessions.end(turn.id);
    }
    return empty_turn(asked.stream, counts, "stop");
  }
  AnswerPlan plan;
  plan.stream = asked.stream;
  plan.format = std::make_unique<InteractiveFormat>(counts);
  plan.requests.emplace_back();
  plan.requests.front().prompt_ids = *std::move(ids);
  plan.requests.front().config = std::move(asked.config);
  auto keeper = std::make_shared<TurnKeeper>(context.sessions, turn.id, std::move(messages), asked.go_on);
  plan.tap = [keeper](const Chunk& chunk) { keeper->take(chunk); };
  plan.on_begun = [&context, id = turn.id](const std::vector<RequestId>& requests) {
    if (!context.sessions.running(id, requests)) cancel_all(context, requests);
  };
  HttpReply reply = answer_with(context, std::move(plan));
  if (reply.late == nullptr) give_back();
  return reply;
}

}  // namespace

HttpReply interactive(Context& context, const Call& call) {
  const Json& body = call.body;
  const auto session = get_or<std::int64_t>(body, "session_id", -1);
  if (get_or(body, "cancel", false)) return cancel_turn(context, session);

  InteractiveRequest asked;
  asked.go_on = get_or(body, "interactive_mode", false);
  asked.stream = get_or(body, "stream", false);
  asked.config = generation_config(body, get_or<std::int64_t>(body, "request_output_len", kDefaultNewTokens));
  const Json& prompt = *find(body, "prompt");
  if (!prompt.is_string()) {
    if (const auto refusal = read_messages(body, "prompt", asked.fresh)) return to_reply(*refusal);
  } else if (!prompt.get_ref<const std::string&>().empty()) {
    asked.fresh.push_back({"user", prompt.get<std::string>()});
  }
  if (session >= 0 && !asked.go_on && asked.fresh.empty()) {  // how clients end a session
    cancel_all(context, context.sessions.end_session(static_cast<std::uint64_t>(session)));
    return empty_turn(asked.stream, {}, "stop");
  }
  auto turn = context.sessions.begin(session < 0 ? std::nullopt : std::optional<std::uint64_t>(session),
                                     Sessions::Clock::now());
  if (!turn) {
    return to_reply({.status = 409,
                     .message = fmt::format("The session_id {} is occupied.", session),
                     .param = "session_id",
                     .code = "session_occupied"});
  }
  return answer_turn(context, *std::move(turn), std::move(asked));
}

}  // namespace lanner::server
