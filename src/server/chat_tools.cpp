#include "server/chat_tools.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace lanner::server {
namespace {

constexpr std::size_t kLongestName = 64;

bool is_name(const Json* name) {
  if (name == nullptr || !name->is_string()) return false;
  const std::string& text = name->get_ref<const std::string&>();
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  };
  return !text.empty() && text.size() <= kLongestName && std::ranges::all_of(text, fits);
}

std::optional<Refusal> read_tool(const Json& json, const std::string& where, Tool& tool) {
  if (!json.is_object()) return bad_field(where, "must be an object");
  const Json* type = find(json, "type");
  if (type == nullptr || *type != "function") {
    return bad_field(where + ".type", "must be \"function\": there are no other tools");
  }
  const Json* function = find(json, "function");
  if (function == nullptr || !function->is_object()) return bad_field(where + ".function", "must be an object");
  const Json* name = find(*function, "name");
  if (!is_name(name)) {
    return bad_field(where + ".function.name", fmt::format("must be a string of up to {} letters, digits, '_', '-' and "
                                                           "'.'",
                                                           kLongestName));
  }
  tool.name = name->get<std::string>();
  const Json* description = find(*function, "description");
  if (description != nullptr && !description->is_string()) {
    return bad_field(where + ".function.description", "must be a string");
  }
  const Json* strict = find(*function, "strict");
  if (strict != nullptr && !strict->is_boolean()) return bad_field(where + ".function.strict", "must be true or false");
  const Json* parameters = find(*function, "parameters");
  if (parameters == nullptr) {
    tool.parameters = {{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
    return std::nullopt;
  }
  if (!parameters->is_object()) return bad_field(where + ".function.parameters", "must be a JSON schema of an object");
  if (parameters->contains("x-guidance")) {
    return bad_field(where + ".function.parameters", "\"x-guidance\" is no keyword of JSON Schema");
  }
  tool.parameters = *parameters;
  if (tool.parameters.empty()) tool.parameters = {{"type", "object"}};
  return std::nullopt;
}

std::optional<Refusal> read_all(const Json& list, std::vector<Tool>& tools) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    Tool tool;
    if (auto refusal = read_tool(list[i], where, tool)) return refusal;
    if (std::ranges::find(tools, tool.name, &Tool::name) != tools.end()) {
      return bad_field(where + ".function.name", fmt::format("'{}' stands there twice", tool.name));
    }
    tools.push_back(std::move(tool));
  }
  return std::nullopt;
}

/// {"type": "function", "function": {"name": …}}: the name, or nullptr.
const Json* chosen_name(const Json& choice) {
  if (!choice.is_object()) return nullptr;
  const Json* type = find(choice, "type");
  const Json* function = find(choice, "function");
  if (type == nullptr || *type != "function" || function == nullptr || !function->is_object()) return nullptr;
  const Json* name = find(*function, "name");
  return name != nullptr && name->is_string() ? name : nullptr;
}

/// Leaves the tools with these names.
std::optional<Refusal> keep_only(const Json& choices, const std::string& where, std::vector<Tool>& tools) {
  std::vector<Tool> kept;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const Json* name = chosen_name(choices[i]);
    if (name == nullptr) return bad_field(where, R"(must be like {"type": "function", "function": {"name": "…"}})");
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

std::optional<Refusal> read_choice(const Json& choice, ToolUse& use) {
  if (choice == "auto") return std::nullopt;
  if (choice == "required") {
    use.demanded = true;
    return std::nullopt;
  }
  const Json* type = choice.is_object() ? find(choice, "type") : nullptr;
  if (type != nullptr && *type == "allowed_tools") {
    const Json* allowed = find(choice, "allowed_tools");
    const Json* mode = allowed != nullptr && allowed->is_object() ? find(*allowed, "mode") : nullptr;
    const Json* tools = mode != nullptr ? find(*allowed, "tools") : nullptr;
    if (tools == nullptr || !tools->is_array() || (*mode != "auto" && *mode != "required")) {
      return bad_field("tool_choice.allowed_tools", "must have a mode, auto or required, and a list of tools");
    }
    use.demanded = *mode == "required";
    return keep_only(*tools, "tool_choice.allowed_tools.tools", use.tools);
  }
  if (choice.is_object()) {
    use.demanded = use.one_call = true;
    return keep_only(Json::array({choice}), "tool_choice", use.tools);
  }
  return bad_field("tool_choice", "must be none, auto, required, or name a function");
}

}  // namespace

std::vector<std::string> ToolUse::names() const {
  std::vector<std::string> list;
  for (const Tool& tool : tools) list.push_back(tool.name);
  return list;
}

std::optional<Refusal> read_tools(const Json& body, const ToolSyntax* syntax, ToolUse& use) {
  const Json* tools = find(body, "tools");
  const Json* choice = find(body, "tool_choice");
  const bool none = choice != nullptr && *choice == "none";
  if (tools == nullptr || tools->empty()) {
    if (choice == nullptr || none || *choice == "auto") return std::nullopt;
    return bad_field("tool_choice", "only together with tools");
  }
  if (auto refusal = read_all(*tools, use.tools)) return refusal;
  if (none) {
    use.tools.clear();
    return std::nullopt;
  }
  if (syntax == nullptr) {
    return not_available("tools", "Please launch the api_server with --tool-call-parser if you want to use tools.");
  }
  use.syntax = syntax;
  use.template_tools = to_text(*tools);
  if (choice != nullptr) {
    if (auto refusal = read_choice(*choice, use)) return refusal;
  }
  use.one_call = use.one_call || !get_or(body, "parallel_tool_calls", true);
  return std::nullopt;
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
