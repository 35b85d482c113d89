#include "server/chat_tools.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace lanner::server {
namespace {

constexpr std::size_t kLongestName = 128;

bool is_name(const Json* name) {
  if (name == nullptr || !name->is_string()) return false;
  const std::string& text = name->get_ref<const std::string&>();
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  };
  return !text.empty() && text.size() <= kLongestName && std::ranges::all_of(text, fits);
}

const char* schema_name(ToolProtocol protocol) {
  return protocol == ToolProtocol::kMessages ? "input_schema" : "parameters";
}

std::optional<Refusal> read_parameters(const Json& function, const char* name, const std::string& where, Tool& tool) {
  const Json* parameters = find(function, name);
  if (parameters == nullptr) {
    tool.parameters = {{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
    return std::nullopt;
  }
  const std::string field = where + "." + name;
  if (!parameters->is_object()) return bad_field(field, "must be a JSON schema of an object");
  if (parameters->contains("x-guidance")) return bad_field(field, "\"x-guidance\" is no keyword of JSON Schema");
  tool.parameters = *parameters;
  if (tool.parameters.empty()) tool.parameters = {{"type", "object"}};
  return std::nullopt;
}

/// A tool's name, what it does, and its schema: in OpenAI's chats in an object of their own.
std::optional<Refusal> read_function(const Json& function, ToolProtocol protocol, const std::string& where,
                                     Tool& tool) {
  const Json* name = find(function, "name");
  if (!is_name(name)) {
    return bad_field(where + ".name",
                     fmt::format("must be a string of up to {} letters, digits, '_', '-' and '.'", kLongestName));
  }
  tool.name = name->get<std::string>();
  const Json* description = find(function, "description");
  if (description != nullptr && !description->is_string()) return bad_field(where + ".description", "must be a string");
  const Json* strict = find(function, "strict");
  if (strict != nullptr && !strict->is_boolean()) return bad_field(where + ".strict", "must be true or false");
  tool.strict = strict != nullptr && strict->get<bool>();
  return read_parameters(function, schema_name(protocol), where, tool);
}

std::optional<Refusal> read_tool(const Json& json, ToolProtocol protocol, const std::string& where, Tool& tool) {
  if (!json.is_object()) return bad_field(where, "must be an object");
  const Json* type = find(json, "type");
  if (protocol == ToolProtocol::kMessages) {
    if (type != nullptr && *type != "custom") {
      return bad_field(where + ".type", "must be \"custom\": there are no tools of the server's own");
    }
    return read_function(json, protocol, where, tool);
  }
  if (type == nullptr || *type != "function") {
    return bad_field(where + ".type", "must be \"function\": there are no other tools");
  }
  if (protocol == ToolProtocol::kResponses) return read_function(json, protocol, where, tool);
  const Json* function = find(json, "function");
  if (function == nullptr || !function->is_object()) return bad_field(where + ".function", "must be an object");
  return read_function(*function, protocol, where + ".function", tool);
}

std::optional<Refusal> read_all(const Json& list, ToolProtocol protocol, std::vector<Tool>& tools) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    Tool tool;
    if (auto refusal = read_tool(list[i], protocol, where, tool)) return refusal;
    if (std::ranges::find(tools, tool.name, &Tool::name) != tools.end()) {
      const char* inside = protocol == ToolProtocol::kChat ? ".function.name" : ".name";
      return bad_field(where + inside, fmt::format("'{}' stands there twice", tool.name));
    }
    tools.push_back(std::move(tool));
  }
  return std::nullopt;
}

/// The tools in the form of OpenAI's chats, which is what chat templates know.
std::string tools_for_template(const Json& list, ToolProtocol protocol) {
  if (protocol == ToolProtocol::kChat) return to_text(list);
  Json all = Json::array();
  for (const Json& tool : list) {
    Json function{{"name", tool["name"]}};
    if (const Json* description = find(tool, "description")) function["description"] = *description;
    const Json* parameters = find(tool, schema_name(protocol));
    function["parameters"] =
        parameters != nullptr ? *parameters : Json{{"type", "object"}, {"properties", Json::object()}};
    all.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return to_text(all);
}

/// How a choice names one tool.
const char* naming_form(ToolProtocol protocol) {
  switch (protocol) {
    case ToolProtocol::kChat: return R"({"type": "function", "function": {"name": "…"}})";
    case ToolProtocol::kResponses: return R"({"type": "function", "name": "…"})";
    case ToolProtocol::kMessages: return R"({"type": "tool", "name": "…"})";
  }
  return "";
}

/// The name in such an object, or nullptr.
const Json* chosen_name(const Json& choice, ToolProtocol protocol) {
  if (!choice.is_object()) return nullptr;
  const Json* type = find(choice, "type");
  const char* wanted = protocol == ToolProtocol::kMessages ? "tool" : "function";
  const Json* named = protocol == ToolProtocol::kChat ? find(choice, "function") : &choice;
  if (type == nullptr || *type != wanted || named == nullptr || !named->is_object()) return nullptr;
  const Json* name = find(*named, "name");
  return name != nullptr && name->is_string() ? name : nullptr;
}

/// Leaves the tools with these names.
std::optional<Refusal> keep_only(const Json& choices, ToolProtocol protocol, const std::string& where,
                                 std::vector<Tool>& tools) {
  std::vector<Tool> kept;
  for (const Json& choice : choices) {
    const Json* name = chosen_name(choice, protocol);
    if (name == nullptr) return bad_field(where, fmt::format("must be like {}", naming_form(protocol)));
    const auto found = std::ranges::find(tools, name->get<std::string>(), &Tool::name);
    if (found == tools.end()) {
      return bad_field(where, fmt::format("there is no tool '{}'", name->get<std::string>().substr(0, 100)));
    }
    if (std::ranges::find(kept, found->name, &Tool::name) == kept.end()) kept.push_back(*found);
  }
  if (kept.empty()) return bad_field(where, "must name a tool");
  tools = std::move(kept);
  return std::nullopt;
}

std::optional<Refusal> demand_one(const Json& choice, ToolProtocol protocol, ToolUse& use) {
  use.demanded = use.one_call = true;
  return keep_only(Json::array({choice}), protocol, "tool_choice", use.tools);
}

/// allowed_tools, whose members stand in an object of their own in OpenAI's chats.
std::optional<Refusal> read_allowed(const Json& choice, ToolProtocol protocol, ToolUse& use) {
  const std::string where = protocol == ToolProtocol::kChat ? "tool_choice.allowed_tools" : "tool_choice";
  const Json* allowed = protocol == ToolProtocol::kChat ? find(choice, "allowed_tools") : &choice;
  const Json* mode = allowed != nullptr && allowed->is_object() ? find(*allowed, "mode") : nullptr;
  const Json* tools = mode != nullptr ? find(*allowed, "tools") : nullptr;
  if (tools == nullptr || !tools->is_array() || (*mode != "auto" && *mode != "required")) {
    return bad_field(where, "must have a mode, auto or required, and a list of tools");
  }
  use.demanded = *mode == "required";
  return keep_only(*tools, protocol, where + ".tools", use.tools);
}

std::optional<Refusal> read_choice(const Json& choice, ToolProtocol protocol, ToolUse& use) {
  if (choice == "auto") return std::nullopt;
  if (choice == "required") {
    use.demanded = true;
    return std::nullopt;
  }
  const Json* type = choice.is_object() ? find(choice, "type") : nullptr;
  if (type != nullptr && *type == "allowed_tools") return read_allowed(choice, protocol, use);
  if (choice.is_object()) return demand_one(choice, protocol, use);
  return bad_field("tool_choice", "must be none, auto, required, or name a function");
}

/// {"type": "auto" | "any" | "tool" | "none", "name": …, "disable_parallel_tool_use": …}
std::optional<Refusal> read_message_choice(const Json& choice, ToolUse& use) {
  const Json* single = find(choice, "disable_parallel_tool_use");
  if (single != nullptr && !single->is_boolean()) {
    return bad_field("tool_choice.disable_parallel_tool_use", "must be true or false");
  }
  use.one_call = single != nullptr && single->get<bool>();
  const Json* type = find(choice, "type");
  if (type != nullptr && *type == "auto") return std::nullopt;
  if (type != nullptr && *type == "any") {
    use.demanded = true;
    return std::nullopt;
  }
  if (type != nullptr && *type == "tool") return demand_one(choice, ToolProtocol::kMessages, use);
  return bad_field("tool_choice.type", "must be auto, any, tool or none");
}

/// Whether the choice is this word, which Anthropic's protocol wraps in an object.
bool chooses(const Json* choice, ToolProtocol protocol, const char* word) {
  if (choice == nullptr) return false;
  if (protocol != ToolProtocol::kMessages) return *choice == word;
  const Json* type = find(*choice, "type");
  return type != nullptr && *type == word;
}

}  // namespace

bool ToolUse::has_strict() const { return std::ranges::any_of(tools, &Tool::strict); }

std::vector<std::string> ToolUse::names() const {
  std::vector<std::string> list;
  for (const Tool& tool : tools) list.push_back(tool.name);
  return list;
}

std::optional<Refusal> read_tools(const Json& body, ToolProtocol protocol, const ToolSyntax* syntax, ToolUse& use) {
  const Json* tools = find(body, "tools");
  const Json* choice = find(body, "tool_choice");
  const bool none = chooses(choice, protocol, "none");
  if (tools == nullptr || tools->empty()) {
    if (choice == nullptr || none || chooses(choice, protocol, "auto")) return std::nullopt;
    return bad_field("tool_choice", "only together with tools");
  }
  if (auto refusal = read_all(*tools, protocol, use.tools)) return refusal;
  if (none) {
    use.tools.clear();
    return std::nullopt;
  }
  if (syntax == nullptr) {
    return not_available("tools", "Please launch the api_server with --tool-call-parser if you want to use tools.");
  }
  use.syntax = syntax;
  use.template_tools = tools_for_template(*tools, protocol);
  if (choice != nullptr) {
    const bool wrapped = protocol == ToolProtocol::kMessages;
    auto refusal = wrapped ? read_message_choice(*choice, use) : read_choice(*choice, protocol, use);
    if (refusal) return refusal;
  }
  use.one_call = use.one_call || !get_or(body, "parallel_tool_calls", true);
  return std::nullopt;
}

Json template_call(const Json& id, const Json& name, const Json& arguments) {
  return template_call({{"id", id}, {"type", "function"}, {"function", {{"name", name}, {"arguments", arguments}}}});
}

Json template_call(Json call) {
  const auto function = call.find("function");
  if (function == call.end() || !function->is_object()) return call;
  const auto arguments = function->find("arguments");
  if (arguments == function->end() || !arguments->is_string()) return call;
  const std::string& text = arguments->get_ref<const std::string&>();
  if (text.empty()) {
    *arguments = Json::object();
    return call;
  }
  Result<Json> object = parse_json(text);
  // What is no object stays as it is: a template may put it into the prompt as text.
  if (object.ok() && object->is_object()) *arguments = *std::move(object);
  return call;
}

std::optional<Refusal> check_calls_in_messages(const Json& messages) {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Json* calls = find(messages[i], "tool_calls");
    if (calls == nullptr) continue;
    const std::string where = fmt::format("messages[{}].tool_calls", i);
    if (!calls->is_array()) return bad_field(where, "must be a list");
    for (const Json& call : *calls) {
      const Json* function = call.is_object() ? find(call, "function") : nullptr;
      const Json* name = function != nullptr && function->is_object() ? find(*function, "name") : nullptr;
      const Json* arguments = name != nullptr ? find(*function, "arguments") : nullptr;
      const bool fits = name != nullptr && name->is_string() &&
                        (arguments == nullptr || arguments->is_string() || arguments->is_object());
      if (!fits) return bad_field(where, R"(a call must be like {"function": {"name": "…", "arguments": "…"}})");
    }
  }
  return std::nullopt;
}

}  // namespace lanner::server
