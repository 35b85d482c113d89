#include "server/chat_request.h"

#include <string_view>
#include <utility>

#include "server/generation_request.h"
#include "server/structured_output.h"

namespace lanner::server {
namespace {

/// Whether the chat template looks at tools, told by the smallest conversation there is.
bool looks_at_tools(const Pipeline& pipeline) {
  constexpr const char* kTool =
      R"([{"type":"function","function":{"name":"f","description":"f","parameters":{"type":"object","properties":{}}}}])";
  GenerationRequest request{.messages = {{.role = "user", .content = "x"}}};
  const Result<std::string> without = pipeline.render(request);
  request.tools = kTool;
  const Result<std::string> with = pipeline.render(request);
  return !without.ok() || !with.ok() || *with != *without;  // what goes wrong will with the conversation, too
}

/// The prompt as text, so that it need not be rendered again.
std::optional<Refusal> render_prompt(Pipeline& pipeline, GenerationRequest& request) {
  if (request.prompt) return std::nullopt;
  if (auto refusal = check_size(request, pipeline.engine().session_len())) return refusal;
  Result<std::string> text = pipeline.render(request);
  if (!text.ok()) {
    if (text.status().code() == StatusCode::kUnsupported) return bad_field("tools", text.status().message());
    return refusal_of(text.status());
  }
  request.prompt = *std::move(text);
  request.messages.clear();
  request.tools.clear();
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

Json given_variables(const Json& body) {
  Json variables = Json::object();
  for (const char* name : {"chat_template_kwargs", "enable_thinking"}) {
    if (const Json* value = find(body, name)) variables[name] = *value;
  }
  return variables;
}

std::string assistant_more(const std::string& thoughts, Json calls) {
  Json more = Json::object();
  if (!thoughts.empty()) more["reasoning_content"] = thoughts;
  if (!calls.empty()) more["tool_calls"] = std::move(calls);
  return more.empty() ? "" : to_text(more);
}

std::optional<Refusal> show_tools(Pipeline& pipeline, const ToolUse& tools, GenerationRequest& request) {
  if (!tools.may_be_called()) return std::nullopt;
  if (request.prompt) return bad_field("tools", "only together with a list of messages");
  request.tools = tools.template_tools;
  if (auto refusal = render_prompt(pipeline, request)) return refusal;
  if (looks_at_tools(pipeline)) return std::nullopt;
  return bad_field("tools", "the model's chat template has no form for tools (--chat-template sets another one)");
}

std::optional<Refusal> prepare_answer(Context& context, const AnswerDemands& demands, GenerationRequest& request,
                                      AnswerReading& reading) {
  Pipeline& pipeline = context.pipeline;
  const ToolUse& tools = demands.tools;
  if (auto refusal = show_tools(pipeline, tools, request)) return refusal;
  if (tools.may_be_called()) {
    reading.tools = tools.syntax;
    reading.tool_names = tools.names();
    reading.one_call = tools.one_call;
    const bool hidden = spells_special_tokens(pipeline, tools.syntax->begin) ||
                        (!tools.syntax->end.empty() && spells_special_tokens(pipeline, tools.syntax->end));
    if (hidden) request.config.skip_special_tokens = false;
  }
  if (context.options.thoughts) {
    if (auto refusal = render_prompt(pipeline, request)) return refusal;
    reading.thoughts = thoughts_after(*request.prompt);
    if (spells_special_tokens(pipeline, kThinkEnd)) request.config.skip_special_tokens = false;
  }
  std::optional<GrammarSource> grammar;
  if (auto refusal = answer_grammar(pipeline, demands.format, tools, reading, grammar)) return refusal;
  if (!grammar) return std::nullopt;
  return set_grammar(pipeline, *grammar, demands.format ? demands.format_field : "tools", request);
}

}  // namespace lanner::server
