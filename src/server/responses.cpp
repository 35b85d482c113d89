// POST /v1/responses: OpenAI's newer protocol, without anything that is stored.

#include <fmt/format.h>

#include <limits>
#include <utility>

#include "server/chat_request.h"
#include "server/chat_tools.h"
#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/response_answer.h"
#include "server/structured_output.h"

namespace lanner::server {
namespace {

std::optional<Refusal> read_texts(const Json* content, const std::string& where, std::string& text) {
  return read_content(content, where, {"input_text", "output_text", "text"}, text);
}

/// The conversation of the input: what the assistant said, called and thought stands in items of their own here, and is
/// one message to chat templates.
class InputReader {
 public:
  explicit InputReader(std::vector<Message>& messages) : messages_(messages) {}

  std::optional<Refusal> read(const Json& item, const std::string& where) {
    const Json* type = find(item, "type");
    if (type == nullptr || *type == "message") return read_message(item, where);
    if (*type == "function_call") return read_call(item, where);
    if (*type == "function_call_output") return read_output(item, where);
    if (*type == "reasoning") return read_reasoning(item, where);
    return not_available(where + ".type",
                         "must be message, function_call, function_call_output or reasoning in this version");
  }

  /// The assistant has come to an end.
  void flush() {
    if (!said_) return;
    Message& message = messages_.emplace_back(Message{.role = "assistant", .content = *std::exchange(said_, {})});
    message.more = assistant_more(std::exchange(thoughts_, {}), std::exchange(calls_, Json::array()));
  }

 private:
  std::optional<Refusal> read_message(const Json& item, const std::string& where) {
    const Json* role = find(item, "role");
    if (role == nullptr || (*role != "user" && *role != "assistant" && *role != "system" && *role != "developer")) {
      return bad_field(where + ".role", "must be user, assistant, system or developer");
    }
    std::string content;
    if (auto refusal = read_texts(find(item, "content"), where + ".content", content)) return refusal;
    if (*role == "assistant") {
      if (said_ && !(said_->empty() && calls_.empty())) flush();
      said_ = std::move(content);
      return std::nullopt;
    }
    flush();
    messages_.push_back({*role == "developer" ? "system" : role->get<std::string>(), std::move(content)});
    return std::nullopt;
  }

  std::optional<Refusal> read_call(const Json& item, const std::string& where) {
    std::string id;
    std::string name;
    std::string arguments;
    if (auto refusal = read_string(item, "call_id", where, id)) return refusal;
    if (auto refusal = read_string(item, "name", where, name)) return refusal;
    if (auto refusal = read_string(item, "arguments", where, arguments)) return refusal;
    if (!said_) said_.emplace();
    calls_.push_back(template_call(id, name, arguments));
    return std::nullopt;
  }

  std::optional<Refusal> read_output(const Json& item, const std::string& where) {
    std::string id;
    if (auto refusal = read_string(item, "call_id", where, id)) return refusal;
    Message message{.role = "tool", .content = ""};
    if (auto refusal = read_texts(find(item, "output"), where + ".output", message.content)) return refusal;
    message.more = to_text({{"tool_call_id", id}});
    flush();
    messages_.push_back(std::move(message));
    return std::nullopt;
  }

  /// The thoughts themselves, or else their summary.
  std::optional<Refusal> read_reasoning(const Json& item, const std::string& where) {
    const Json* parts = find(item, "content");
    const char* name = "content";
    if (parts == nullptr || parts->empty()) {
      parts = find(item, "summary");
      name = "summary";
    }
    std::string text;
    if (parts != nullptr) {
      const std::string at = where + "." + name;
      if (auto refusal = read_content(parts, at, {"reasoning_text", "summary_text"}, text)) return refusal;
    }
    if (said_ && !(said_->empty() && calls_.empty())) flush();
    if (!said_) said_.emplace();
    thoughts_ += text;
    return std::nullopt;
  }

  std::vector<Message>& messages_;
  // Of the assistant, as far as it has come:
  std::optional<std::string> said_;
  std::string thoughts_;
  Json calls_ = Json::array();
};

/// The effort is a variable of some chat templates.
std::optional<Refusal> read_reasoning_options(const Json& reasoning, Json& variables) {
  for (const auto& [name, value] : reasoning.items()) {
    const bool effort = name == "effort" && (value.is_null() || value.is_string());
    if (!effort && !value.is_null()) {
      return not_available("reasoning." + name.substr(0, 100), "only the effort is taken, as a string");
    }
    if (effort) variables["reasoning_effort"] = value;
  }
  return std::nullopt;
}

std::optional<Refusal> read_input(const Json& body, GenerationRequest& request) {
  const auto instructions = get_or<std::string>(body, "instructions", "");
  if (!instructions.empty()) request.messages.push_back({"system", instructions});
  const Json& input = *find(body, "input");
  if (input.is_string()) {
    request.messages.push_back({"user", input.get<std::string>()});
  } else {
    InputReader reader(request.messages);
    for (std::size_t i = 0; i < input.size(); ++i) {
      if (auto refusal = reader.read(input[i], fmt::format("input[{}]", i))) return refusal;
    }
    reader.flush();
  }
  Json variables = given_variables(body);
  if (const Json* reasoning = find(body, "reasoning")) {
    if (auto refusal = read_reasoning_options(*reasoning, variables)) return refusal;
  }
  return read_template_variables(variables, request.chat_template_kwargs);
}

std::optional<Refusal> read_text_options(const Json& body, std::optional<GrammarSource>& format) {
  const Json* text = find(body, "text");
  if (text == nullptr) return std::nullopt;
  for (const auto& [name, value] : text->items()) {
    if (value.is_null()) continue;
    if (name == "format") {
      if (auto refusal = read_flat_format(value, "text.format", format)) return refusal;
    } else if (name != "verbosity" || value != "medium") {
      return not_available("text." + name.substr(0, 100), "not available in this version");
    }
  }
  return std::nullopt;
}

std::optional<Refusal> check_stream_options(const Json& body) {
  const Json* options = find(body, "stream_options");
  if (options == nullptr) return std::nullopt;
  if (!get_or(body, "stream", false)) return bad_field("stream_options", "only together with \"stream\": true");
  for (const auto& [name, value] : options->items()) {
    if (name != "include_obfuscation" || !(value.is_null() || value == false)) {
      return not_available("stream_options." + name.substr(0, 100), "not available in this version");
    }
  }
  return std::nullopt;
}

/// The members of an answer that repeat the request, and those that always say the same.
Json echo_of(const Json& body, const std::string& model) {
  const auto given = [&](const char* name) {
    const Json* value = find(body, name);
    return value == nullptr ? Json() : *value;
  };
  const auto given_or = [&](const char* name, const Json& otherwise) {
    const Json* value = find(body, name);
    return value == nullptr ? otherwise : *value;
  };
  Json reasoning{{"effort", nullptr}, {"summary", nullptr}};
  reasoning.update(given_or("reasoning", Json::object()));
  Json text{{"format", {{"type", "text"}}}};
  text.update(given_or("text", Json::object()));
  return {{"instructions", given("instructions")},
          {"max_output_tokens", given("max_output_tokens")},
          {"model", model},
          {"parallel_tool_calls", given_or("parallel_tool_calls", true)},
          {"previous_response_id", nullptr},
          {"reasoning", std::move(reasoning)},
          {"background", false},
          {"store", false},
          {"temperature", given("temperature")},
          {"text", text},
          {"tool_choice", given_or("tool_choice", "auto")},
          {"tools", given_or("tools", Json::array())},
          {"top_logprobs", given_or("top_logprobs", 0)},
          {"top_p", given("top_p")},
          {"truncation", "disabled"},
          {"service_tier", "default"},
          {"metadata", given_or("metadata", Json::object())},
          {"user", given("user")}};
}

}  // namespace

HttpReply responses(Context& context, const Call& call) {
  const Json& body = call.body;
  if (const auto refusal = check_model(body, context.options.model_name)) return to_reply(*refusal);
  AnswerPlan plan;
  GenerationRequest& request = plan.requests.emplace_back();
  if (const auto refusal = read_input(body, request)) return to_reply(*refusal);
  if (const auto refusal = check_stream_options(body)) return to_reply(*refusal);

  AnswerDemands demands{.format_field = "text.format"};
  if (const auto refusal = read_text_options(body, demands.format)) return to_reply(*refusal);
  if (const auto refusal = read_tools(body, ToolProtocol::kResponses, context.options.tools, demands.tools)) {
    return to_reply(*refusal);
  }

  ResponseOptions options{.pipeline = &context.pipeline, .echo = echo_of(body, context.options.model_name)};
  const Json* include = find(body, "include");
  const bool logprobs = include != nullptr && *include == Json::array({"message.output_text.logprobs"});
  const int others = get_or(body, "top_logprobs", 0);
  if (logprobs || others > 0) options.logprobs = others;
  request.config = generation_config(
      body, get_or<std::int64_t>(body, "max_output_tokens", std::numeric_limits<std::int32_t>::max()));
  request.config.logprobs = options.logprobs;
  if (const auto refusal = prepare_answer(context, demands, request, options.reading)) return to_reply(*refusal);
  plan.stream = get_or(body, "stream", false);
  plan.format = make_response_format(std::move(options));
  return answer_with(context, std::move(plan));
}

}  // namespace lanner::server
