#include "server/anthropic_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/openai_answer.h"

namespace lanner::server {
namespace {

/// How the protocol calls the errors of an HTTP status.
std::string anthropic_error_type(int status) {
  if (status == 413) return "request_too_large";
  if (status == 503) return "overloaded_error";
  return status >= 500 ? "api_error" : error_type(status);
}

Refusal stopped_early() { return plain_refusal(503, "the answer was stopped before its end", "aborted"); }

/// What the cache had is not among the input tokens here.
Json anthropic_usage(const TokenCounts& counts) {
  return {{"input_tokens", counts.prompt - counts.cached},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", counts.cached},
          {"output_tokens", counts.generated}};
}

Json text_block(const std::string& text) { return {{"type", "text"}, {"text", text}}; }
/// Thoughts are signed there, so that nobody gives a model others than its own; nothing checks them here.
Json thinking_block(const std::string& text) { return {{"type", "thinking"}, {"thinking", text}, {"signature", ""}}; }
Json tool_block(const ToolCall& call, Json input) {
  return {{"type", "tool_use"}, {"id", random_id("toolu_")}, {"name", call.name}, {"input", std::move(input)}};
}

class AnthropicFormat final : public AnswerFormat {
 public:
  explicit AnthropicFormat(AnthropicAnswerOptions options) : options_(std::move(options)), id_(random_id("msg_")) {
    if (options_.reading.has_parts()) parser_.emplace(options_.reading);
  }

  void begin(std::size_t /*choices*/, std::string& out) override {
    const Json message = message_json(Json::array(), Json(), Json(), {.prompt = options_.prompt_tokens});
    put("message_start", {{"type", "message_start"}, {"message", message}}, out);
  }

  void piece(std::size_t /*choice*/, const Chunk& chunk, std::string& out) override {
    if (chunk.text.empty()) return;
    if (!parser_) return put_text(chunk.text, out);
    AnswerParts parts;
    parser_->push(chunk.text, parts);
    put_parts(parts, out);
  }

  void end(const AnswerSoFar& answer, std::string& out) override {
    const ChoiceSoFar& choice = answer.choices.front();
    if (choice.reason == FinishReason::kAbort) return fail(stopped_early(), out);
    if (parser_) {
      AnswerParts parts;
      parser_->finish(parts);
      put_parts(parts, out);
    }
    if (blocks_ == 0) open(Block::kText, out);
    close(out);
    const Json delta{{"stop_reason", stop_reason(choice, calls_)}, {"stop_sequence", stop_sequence(choice)}};
    put("message_delta", {{"type", "message_delta"}, {"delta", delta}, {"usage", anthropic_usage(answer.counts)}}, out);
    put("message_stop", {{"type", "message_stop"}}, out);
  }

  void fail(const Refusal& refusal, std::string& out) override {
    put("error", anthropic_error(refusal.status, refusal.message), out);
  }

  HttpReply whole(const AnswerSoFar& answer) override {
    const ChoiceSoFar& choice = answer.choices.front();
    if (choice.reason == FinishReason::kAbort) return refuse(stopped_early());
    const AnswerParts parts = parts_of(options_.reading, choice.text);
    Json content = Json::array();
    if (!parts.reasoning.empty()) content.push_back(thinking_block(parts.reasoning));
    if (!parts.content.empty()) content.push_back(text_block(parts.content));
    for (const ToolCall& call : parts.calls) content.push_back(tool_block(call, Json::parse(call.arguments)));
    if (content.empty()) content.push_back(text_block(""));
    const Json reason = stop_reason(choice, parts.calls.size());
    return json_reply(message_json(std::move(content), reason, stop_sequence(choice), answer.counts));
  }

  HttpReply refuse(const Refusal& refusal) override { return in_anthropic_form(to_reply(refusal)); }

 private:
  enum class Block { kNone, kText, kThinking };

  static void put(std::string_view name, const Json& data, std::string& out) {
    put_named_event(name, to_text(data), out);
  }

  void put_start(Json block, std::string& out) {
    put("content_block_start",
        {{"type", "content_block_start"}, {"index", blocks_}, {"content_block", std::move(block)}}, out);
    ++blocks_;
  }

  /// Text for the block that is open, which is the last; the rest of such an event is always the same.
  void put_delta(std::string_view kind, std::string_view member, std::string_view text, std::string& out) const {
    put_named_event("content_block_delta",
                    fmt::format(R"({{"type":"content_block_delta","index":{},"delta":{{"type":"{}","{}":{}}}}})",
                                blocks_ - 1, kind, member, json_string(text)),
                    out);
  }

  void put_stop(std::string& out) const {
    put("content_block_stop", {{"type", "content_block_stop"}, {"index", blocks_ - 1}}, out);
  }

  void open(Block kind, std::string& out) {
    if (open_ == kind) return;
    close(out);
    put_start(kind == Block::kText ? text_block("") : thinking_block(""), out);
    open_ = kind;
  }

  void close(std::string& out) {
    if (open_ != Block::kNone) put_stop(out);
    open_ = Block::kNone;
  }

  void put_text(std::string_view text, std::string& out) {
    open(Block::kText, out);
    put_delta("text_delta", "text", text, out);
  }

  void put_parts(const AnswerParts& parts, std::string& out) {
    if (!parts.reasoning.empty()) {
      open(Block::kThinking, out);
      put_delta("thinking_delta", "thinking", parts.reasoning, out);
    }
    if (!parts.content.empty()) put_text(parts.content, out);
    for (const ToolCall& call : parts.calls) {
      close(out);
      put_start(tool_block(call, Json::object()), out);
      put_delta("input_json_delta", "partial_json", call.arguments, out);
      put_stop(out);
      ++calls_;
    }
  }

  bool was_asked_for(const std::string& stop) const {
    return std::ranges::find(options_.stops, stop) != options_.stops.end();
  }
  Json stop_reason(const ChoiceSoFar& choice, std::size_t calls) const {
    if (choice.reason == FinishReason::kLength) return "max_tokens";
    if (was_asked_for(choice.stop)) return "stop_sequence";
    return calls > 0 ? "tool_use" : "end_turn";
  }
  Json stop_sequence(const ChoiceSoFar& choice) const {
    return was_asked_for(choice.stop) ? Json(choice.stop) : Json();
  }

  Json message_json(Json content, Json reason, Json sequence, const TokenCounts& counts) const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", options_.model},
            {"content", std::move(content)},
            {"stop_reason", std::move(reason)},
            {"stop_sequence", std::move(sequence)},
            {"usage", anthropic_usage(counts)}};
  }

  const AnthropicAnswerOptions options_;
  const std::string id_;
  // Of a stream:
  std::optional<AnswerParser> parser_;  // none: all is text
  Block open_ = Block::kNone;
  std::size_t blocks_ = 0;  // begun
  std::size_t calls_ = 0;
};

}  // namespace

std::unique_ptr<AnswerFormat> make_anthropic_format(AnthropicAnswerOptions options) {
  return std::make_unique<AnthropicFormat>(std::move(options));
}

Json anthropic_error(int status, const std::string& message) {
  return {{"type", "error"}, {"error", {{"type", anthropic_error_type(status)}, {"message", message}}}};
}

HttpReply in_anthropic_form(HttpReply reply) {
  if (reply.status < 400 || reply.late != nullptr) return reply;
  const Json body = Json::parse(reply.body, nullptr, false);
  const bool known = body.is_object() && body.contains("message") && body["message"].is_string();
  reply.body = to_text(anthropic_error(reply.status, known ? body["message"].get<std::string>() : ""));
  return reply;
}

}  // namespace lanner::server
