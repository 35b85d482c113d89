// POST /v1/messages and /v1/messages/count_tokens, GET /anthropic/v1/models: Anthropic's protocol.

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "server/anthropic_answer.h"
#include "server/chat_request.h"
#include "server/chat_tools.h"
#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/structured_output.h"

namespace lanner::server {
namespace {

bool has_type(const Json& block, const char* type) { return block.is_object() && block.value("type", Json()) == type; }

/// Texts of one message stand in lines of their own.
std::optional<Refusal> read_text(const Json& block, const std::string& where, std::string& content) {
  std::string text;
  if (auto refusal = read_text_part(block, where, {"text"}, text)) return refusal;
  if (!content.empty()) content += '\n';
  content += text;
  return std::nullopt;
}

std::optional<Refusal> read_tool_use(const Json& block, const std::string& where, Json& calls) {
  std::string id;
  std::string name;
  if (auto refusal = read_string(block, "id", where, id)) return refusal;
  if (auto refusal = read_string(block, "name", where, name)) return refusal;
  const Json* input = find(block, "input");
  if (input == nullptr || !input->is_object()) return bad_field(where + ".input", "must be an object");
  calls.push_back(template_call(id, name, *input));
  return std::nullopt;
}

std::optional<Refusal> read_assistant_blocks(const Json& blocks, const std::string& where, Message& message) {
  std::string thoughts;
  Json calls = Json::array();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", where, i);
    std::optional<Refusal> refusal;
    if (has_type(blocks[i], "thinking")) {
      std::string thought;
      refusal = read_string(blocks[i], "thinking", at, thought);
      thoughts += thought;
    } else if (has_type(blocks[i], "tool_use")) {
      refusal = read_tool_use(blocks[i], at, calls);
    } else {
      refusal = read_text(blocks[i], at, message.content);
    }
    if (refusal) return refusal;
  }
  message.more = assistant_more(thoughts, std::move(calls));
  return std::nullopt;
}

/// What a tool has answered, which is a message of its own to chat templates.
std::optional<Refusal> read_tool_result(const Json& block, const std::string& where, Message& message) {
  message.role = "tool";
  std::string id;
  if (auto refusal = read_string(block, "tool_use_id", where, id)) return refusal;
  if (const Json* content = find(block, "content")) {
    if (auto refusal = read_content(content, where + ".content", {"text"}, message.content)) return refusal;
  }
  Json more{{"tool_call_id", id}};
  if (const Json* failed = find(block, "is_error")) {
    if (!failed->is_boolean()) return bad_field(where + ".is_error", "must be true or false");
    more["is_error"] = *failed;
  }
  message.more = to_text(more);
  return std::nullopt;
}

std::optional<Refusal> read_user_blocks(const Json& blocks, const std::string& where, std::vector<Message>& messages) {
  const Message nothing_said{.role = "user", .content = ""};
  Message said = nothing_said;
  bool says = blocks.empty();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", where, i);
    if (!has_type(blocks[i], "tool_result")) {
      if (auto refusal = read_text(blocks[i], at, said.content)) return refusal;
      says = true;
      continue;
    }
    if (std::exchange(says, false)) messages.push_back(std::exchange(said, nothing_said));
    Message result;
    if (auto refusal = read_tool_result(blocks[i], at, result)) return refusal;
    messages.push_back(std::move(result));
  }
  if (says) messages.push_back(std::move(said));
  return std::nullopt;
}

std::optional<Refusal> read_message(const Json& json, const std::string& where, std::vector<Message>& messages) {
  if (!json.is_object()) return bad_field(where, "must be an object");
  const Json* role = find(json, "role");
  const bool assistant = role != nullptr && *role == "assistant";
  if (!assistant && (role == nullptr || *role != "user")) {
    return bad_field(where + ".role", "must be user or assistant");
  }
  for (const auto& [key, value] : json.items()) {
    if (key != "role" && key != "content") return bad_field(where + "." + key.substr(0, 100), "unknown field");
  }
  const Json* content = find(json, "content");
  const std::string at = where + ".content";
  if (content == nullptr || !(content->is_string() || content->is_array())) {
    return bad_field(at, "must be a string or a list of blocks");
  }
  if (content->is_array() && !assistant) return read_user_blocks(*content, at, messages);
  Message& message = messages.emplace_back(Message{.role = role->get<std::string>(), .content = ""});
  if (content->is_array()) return read_assistant_blocks(*content, at, message);
  message.content = content->get<std::string>();
  return std::nullopt;
}

std::optional<Refusal> read_system(const Json& system, std::vector<Message>& messages) {
  // Which some clients put in front, other for each request: no prompt would begin as one before.
  constexpr std::string_view kBilling = "x-anthropic-billing-header:";
  Message message{.role = "system", .content = ""};
  if (system.is_string()) {
    message.content = system.get<std::string>();
  } else {
    for (std::size_t i = 0; i < system.size(); ++i) {
      const Json* text = find(system[i], "text");
      const bool billing = text != nullptr && text->is_string() &&
                           std::string_view(text->get_ref<const std::string&>()).starts_with(kBilling);
      if (billing) continue;
      if (auto refusal = read_text(system[i], fmt::format("system[{}]", i), message.content)) return refusal;
    }
  }
  if (!message.content.empty()) messages.push_back(std::move(message));
  return std::nullopt;
}

/// {"type": "enabled" | "disabled" | "adaptive"}: a variable of chat templates.
std::optional<Refusal> read_thinking(const Json& thinking, bool thoughts, Json& variables) {
  for (const auto& [name, value] : thinking.items()) {
    if (name == "type" || value.is_null()) continue;
    if (name != "budget_tokens") return not_available("thinking." + name.substr(0, 100), "not available");
    if (!value.is_number_unsigned()) return bad_field("thinking.budget_tokens", "must be a whole number");
  }
  const Json* type = find(thinking, "type");
  const bool enabled = type != nullptr && *type == "enabled";
  const bool disabled = type != nullptr && *type == "disabled";
  if (!enabled && !disabled && (type == nullptr || *type != "adaptive")) {
    return bad_field("thinking.type", "must be enabled, disabled or adaptive");
  }
  if (enabled && !thoughts) {
    return not_available("thinking", "Please launch the api_server with --reasoning-parser if you want thoughts.");
  }
  if ((enabled || disabled) && find(variables, "enable_thinking") == nullptr) variables["enable_thinking"] = enabled;
  return std::nullopt;
}

std::optional<Refusal> read_output_config(const Json& config, Json& variables, std::optional<GrammarSource>& format) {
  for (const auto& [name, value] : config.items()) {
    if (value.is_null()) continue;
    const std::string where = "output_config." + name.substr(0, 100);
    if (name == "effort") {
      if (!value.is_string()) return bad_field(where, "must be a string");
      variables["reasoning_effort"] = value;
    } else if (name == "format") {
      if (auto refusal = read_flat_format(value, where, format)) return refusal;
    } else {
      return not_available(where, "not available in this version");
    }
  }
  return std::nullopt;
}

/// A conversation and what is asked of its answer.
struct Talk {
  GenerationRequest request;
  AnswerDemands demands{.format_field = "output_config.format"};
};

std::optional<Refusal> read_turns(const Json& body, std::vector<Message>& messages) {
  if (const Json* system = find(body, "system")) {
    if (auto refusal = read_system(*system, messages)) return refusal;
  }
  const Json& list = *find(body, "messages");
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (auto refusal = read_message(list[i], fmt::format("messages[{}]", i), messages)) return refusal;
  }
  return std::nullopt;
}

/// Everything but how to draw.
std::optional<Refusal> read_talk(const Context& context, const Json& body, Talk& talk) {
  GenerationRequest& request = talk.request;
  if (auto refusal = read_turns(body, request.messages)) return refusal;
  Json variables = given_variables(body);
  if (const Json* thinking = find(body, "thinking")) {
    if (auto refusal = read_thinking(*thinking, context.options.thoughts, variables)) return refusal;
  }
  if (const Json* config = find(body, "output_config")) {
    if (auto refusal = read_output_config(*config, variables, talk.demands.format)) return refusal;
  }
  if (request.messages.back().role == "assistant") {  // the answer goes on from there
    const Json& blocks = find(body, "messages")->back()["content"];
    const auto calls = [](const Json& block) { return has_type(block, "tool_use"); };
    if (blocks.is_array() && std::ranges::any_of(blocks, calls)) {
      return bad_field("messages", "calls of tools must be followed by their results");
    }
    variables["continue_final_message"] = true;
    variables["add_generation_prompt"] = false;
  }
  if (auto refusal = read_template_variables(variables, request.chat_template_kwargs)) return refusal;
  return read_tools(body, ToolProtocol::kMessages, context.options.tools, talk.demands.tools);
}

}  // namespace

HttpReply messages(Context& context, const Call& call) {
  const Json& body = call.body;
  if (const auto refusal = check_model(body, context.options.model_name)) return to_reply(*refusal);
  Talk talk;
  if (const auto refusal = read_talk(context, body, talk)) return to_reply(*refusal);
  GenerationRequest& request = talk.request;
  request.config = generation_config(body, *get<std::int64_t>(body, "max_tokens"));
  if (const Json* stops = find(body, "stop_sequences")) request.config.stop = read_stops(*stops);
  AnthropicAnswerOptions options{.model = context.options.model_name, .stops = request.config.stop};
  if (const auto refusal = prepare_answer(context, talk.demands, request, options.reading)) return to_reply(*refusal);
  // The first event says how many there are.
  auto ids = prompt_ids(context.pipeline, request);
  if (!ids.ok()) return to_reply(refusal_of(ids.status()));
  options.prompt_tokens = static_cast<std::int64_t>(ids->size());

  AnswerPlan plan;
  plan.stream = get_or(body, "stream", false);
  plan.requests.push_back(
      {.config = std::move(request.config), .prompt_ids = *std::move(ids), .grammar = std::move(request.grammar)});
  plan.format = make_anthropic_format(std::move(options));
  return answer_with(context, std::move(plan));
}

HttpReply count_message_tokens(Context& context, const Call& call) {
  if (const auto refusal = check_model(call.body, context.options.model_name)) return to_reply(*refusal);
  Talk talk;
  if (const auto refusal = read_talk(context, call.body, talk)) return to_reply(*refusal);
  if (const auto refusal = show_tools(context.pipeline, talk.demands.tools, talk.request)) return to_reply(*refusal);
  const auto ids = prompt_ids(context.pipeline, talk.request);
  if (!ids.ok()) return to_reply(refusal_of(ids.status()));
  return json_reply({{"input_tokens", ids->size()}});
}

HttpReply list_anthropic_models(Context& context, const Call& /*call*/) {
  static const std::time_t created = std::time(nullptr);
  const std::string& name = context.options.model_name;
  const Json card{{"type", "model"},
                  {"id", name},
                  {"display_name", name},
                  {"created_at", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(created))}};
  return json_reply({{"data", Json::array({card})}, {"has_more", false}, {"first_id", name}, {"last_id", name}});
}

}  // namespace lanner::server
