#include "server/chat_request.h"

#include <string_view>
#include <utility>

#include "server/chat_tools.h"
#include "server/generation_request.h"
#include "server/structured_output.h"

namespace lanner::server {
namespace {

/// The prompt as text, so that it need not be rendered again. A template that does not look at tools is of no use.
std::optional<Refusal> render_prompt(Pipeline& pipeline, GenerationRequest& request) {
  if (request.prompt) return std::nullopt;
  if (auto refusal = check_size(request, pipeline.engine().session_len())) return refusal;
  Result<std::string> text = pipeline.render(request);
  if (!text.ok()) {
    if (text.status().code() == StatusCode::kUnsupported) return bad_field("tools", text.status().message());
    return refusal_of(text.status());
  }
  if (!request.tools.empty()) {
    request.tools.clear();
    const Result<std::string> same = pipeline.render(request);
    if (same.ok() && *same == *text) {
      return bad_field("tools", "the model's chat template has no form for tools (--chat-template sets another one)");
    }
  }
  request.prompt = *std::move(text);
  request.messages.clear();
  return std::nullopt;
}

/// What the prompt has begun, or has done with.
AnswerReading::Thoughts thoughts_after(std::string_view prompt) {
  const std::size_t last = prompt.find_last_not_of(" \t\r\n");
  prompt = prompt.substr(0, last == std::string_view::npos ? 0 : last + 1);
  if (prompt.ends_with(kThinkBegin)) return AnswerReading::Thoughts::kBegun;
  if (prompt.ends_with(kThinkEnd)) return AnswerReading::Thoughts::kNone;
  return AnswerReading::Thoughts::kMayBegin;
}

}  // namespace

std::optional<Refusal> read_conversation(const Json& body, GenerationRequest& request) {
  const Json& messages = *find(body, "messages");
  if (messages.is_string()) {
    request.prompt = messages.get<std::string>();
  } else {
    if (auto refusal = check_calls_in_messages(messages)) return refusal;
    if (auto refusal = read_messages(body, "messages", request.messages)) return refusal;
  }
  return read_template_variables(body, request.chat_template_kwargs);
}

std::optional<Refusal> prepare_answer(Context& context, const Json& body, GenerationRequest& request,
                                      AnswerReading& reading) {
  Pipeline& pipeline = context.pipeline;
  ToolUse tools;
  if (auto refusal = read_tools(body, context.options.tools, tools)) return refusal;
  if (tools.may_be_called() && request.prompt) return bad_field("tools", "only together with a list of messages");
  request.tools = tools.template_tools;
  if (tools.may_be_called() || context.options.thoughts) {
    if (auto refusal = render_prompt(pipeline, request)) return refusal;
  }
  if (tools.may_be_called()) {
    reading.tools = tools.syntax;
    reading.tool_names = tools.names();
    reading.one_call = tools.one_call;
    const bool hidden = spells_special_tokens(pipeline, tools.syntax->begin) ||
                        (!tools.syntax->end.empty() && spells_special_tokens(pipeline, tools.syntax->end));
    if (hidden) request.config.skip_special_tokens = false;
  }
  if (context.options.thoughts) {
    reading.thoughts = thoughts_after(*request.prompt);
    if (spells_special_tokens(pipeline, kThinkEnd)) request.config.skip_special_tokens = false;
  }
  return set_grammar(pipeline, body, tools, reading, request);
}

}  // namespace lanner::server
