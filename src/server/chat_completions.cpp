// POST /v1/chat/completions

#include <fmt/format.h>

#include <limits>
#include <utility>

#include "server/answer_parser.h"
#include "server/chat_request.h"
#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/openai_answer.h"
#include "server/structured_output.h"

namespace lanner::server {
namespace {

Json logprobs_json(const Pipeline& pipeline, const std::vector<TokenLogprobs>& tokens) {
  return {{"content", token_logprobs_json(pipeline, tokens)}, {"refusal", nullptr}};
}

/// One choice of a stream, as it is read.
struct ReadChoice {
  explicit ReadChoice(const AnswerReading& reading) : parser(reading) {}
  AnswerParser parser;
  std::size_t calls = 0;
};

Json call_json(const ToolCall& call) {
  return {{"id", random_id("chatcmpl-tool-")},
          {"type", "function"},
          {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

class ChatFormat final : public OpenAiFormat {
 public:
  ChatFormat(OpenAiAnswerOptions options, AnswerReading reading)
      : OpenAiFormat(std::move(options), "chat.completion.chunk", "chat.completion"),
        reading_(std::move(reading)),
        is_read_(reading_.has_parts()) {}

  void begin(std::size_t choices, std::string& out) override {
    for (std::size_t i = 0; i < choices; ++i) {
      put_choice(i, R"("delta":{"role":"assistant","content":""})", "null", "null", out);
      if (is_read_) choices_.emplace_back(reading_);
    }
  }

  void piece(std::size_t choice, const Chunk& chunk, std::string& out) override {
    if (chunk.text.empty() && chunk.logprobs.empty()) return;
    const std::string logprobs =
        chunk.logprobs.empty() ? "null" : to_text(logprobs_json(*options().pipeline, chunk.logprobs));
    if (!is_read_) return put_text(choice, "content", chunk.text, logprobs, out);
    AnswerParts parts;
    choices_[choice].parser.push(chunk.text, parts);
    put_parts(choice, parts, logprobs, out);
  }

 private:
  std::string_view no_addition() const override { return R"("delta":{})"; }

  void put_text(std::size_t choice, std::string_view name, std::string_view text, std::string_view logprobs,
                std::string& out) const {
    put_choice(choice, fmt::format(R"("delta":{{"{}":{}}})", name, json_string(text)), logprobs, "null", out);
  }

  /// The log-probabilities go with the first event.
  void put_parts(std::size_t choice, const AnswerParts& parts, std::string_view logprobs, std::string& out) {
    const auto take_logprobs = [&] { return std::exchange(logprobs, "null"); };
    if (!parts.reasoning.empty()) put_text(choice, "reasoning_content", parts.reasoning, take_logprobs(), out);
    if (!parts.content.empty()) put_text(choice, "content", parts.content, take_logprobs(), out);
    for (const ToolCall& call : parts.calls) put_call(choice, call, take_logprobs(), out);
    if (logprobs != "null") put_text(choice, "content", "", logprobs, out);
  }

  /// The name first, then the arguments.
  void put_call(std::size_t choice, const ToolCall& call, std::string_view logprobs, std::string& out) {
    const std::size_t index = choices_[choice].calls++;
    Json head{{"index", index}};
    head.update(call_json({.name = call.name, .arguments = ""}));
    const Json arguments{{"index", index}, {"function", {{"arguments", call.arguments}}}};
    for (const Json& part : {head, arguments}) {
      const std::string delta = R"("delta":{"tool_calls":[)" + to_text(part) + "]}";
      put_choice(choice, delta, std::exchange(logprobs, "null"), "null", out);
    }
  }

  void finish_choice(std::size_t index, std::string& out) override {
    if (!is_read_) return;
    AnswerParts parts;
    choices_[index].parser.finish(parts);
    put_parts(index, parts, "null", out);
  }

  static const char* reason_with_calls(FinishReason reason, std::size_t calls) {
    return reason == FinishReason::kStop && calls > 0 ? "tool_calls" : reason_name(reason);
  }
  const char* end_reason(std::size_t index, FinishReason reason) const override {
    return reason_with_calls(reason, is_read_ ? choices_[index].calls : 0);
  }

  Json choice_json(std::size_t index, const ChoiceSoFar& choice) override {
    const AnswerParts parts = parts_of(reading_, choice.text);
    Json message{{"role", "assistant"}, {"content", parts.content}, {"refusal", nullptr}};
    if (reading_.thoughts != AnswerReading::Thoughts::kNone) {
      message["reasoning_content"] = parts.reasoning.empty() ? Json() : Json(parts.reasoning);
    }
    if (!parts.calls.empty()) {
      if (parts.content.empty()) message["content"] = nullptr;
      message["tool_calls"] = Json::array();
      for (const ToolCall& call : parts.calls) message["tool_calls"].push_back(call_json(call));
    }
    const Json logprobs = options().logprobs < 0 ? Json() : logprobs_json(*options().pipeline, choice.logprobs);
    return {{"index", index},
            {"message", std::move(message)},
            {"logprobs", logprobs},
            {"finish_reason", reason_with_calls(choice.reason, parts.calls.size())}};
  }

  const AnswerReading reading_;
  const bool is_read_;
  std::vector<ReadChoice> choices_;  // of a stream
};

}  // namespace

HttpReply chat_completions(Context& context, const Call& call) {
  const Json& body = call.body;
  if (const auto refusal = check_model(body, context.options.model_name)) return to_reply(*refusal);
  GenerationRequest request;
  if (const auto refusal = read_conversation(body, request)) return to_reply(*refusal);

  OpenAiAnswerOptions options{
      .pipeline = &context.pipeline, .id = random_id("chatcmpl-"), .model = context.options.model_name};
  if (const auto refusal = read_stream_options(body, options.include_usage)) return to_reply(*refusal);
  if (get_or(body, "logprobs", false)) options.logprobs = get_or(body, "top_logprobs", 0);
  if (options.logprobs < 0 && get_or(body, "top_logprobs", 0) > 0) {
    return to_reply(bad_field("top_logprobs", "only together with \"logprobs\": true"));
  }
  const auto most = get<std::int64_t>(body, "max_completion_tokens");
  request.config = generation_config(
      body, most ? *most : get_or<std::int64_t>(body, "max_tokens", std::numeric_limits<std::int32_t>::max()));
  request.config.logprobs = options.logprobs;
  AnswerDemands demands;
  if (const auto refusal = read_tools(body, ToolProtocol::kChat, context.options.tools, demands.tools)) {
    return to_reply(*refusal);
  }
  if (const auto refusal = read_response_format(body, demands.format)) return to_reply(*refusal);
  AnswerReading reading;
  if (const auto refusal = prepare_answer(context, demands, request, reading)) return to_reply(*refusal);

  AnswerPlan plan;
  plan.stream = get_or(body, "stream", false);
  plan.requests.push_back(std::move(request));
  plan.format = std::make_unique<ChatFormat>(std::move(options), std::move(reading));
  return answer_with(context, std::move(plan));
}

}  // namespace lanner::server
