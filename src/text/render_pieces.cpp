#include <fmt/format.h>

#include <utility>

#include "text/chat_template.h"
#include "text/rust_call.h"
#include "text/template_pieces.h"

namespace lanner {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kToolCallForms = "\"function\": {\"name\": TEXT, \"arguments\": OBJECT}";

std::string_view text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return {};
  return found->get_ref<const std::string&>();
}

bool is_system(const Json& message) {
  const std::string_view role = message.is_object() ? text_of(message, "role") : std::string_view();
  return role == "system" || role == "developer";
}

// The text of a message: a string, or the text parts of a list of parts.
Result<std::string> content_of(const Json& message) {
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) return std::string();
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) return invalid_argument("a message's content is neither text nor a list of parts");
  std::string text;
  for (const Json& part : *content) {
    const bool is_text = part.is_object() && part.contains("text") && part["text"].is_string();
    if (!is_text) return unsupported("this chat template takes only text parts in a message");
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

// What a model is shown of a tool: the function without its wrapping {"type": "function", "function": …}.
const Json& function_of(const Json& tool) {
  const auto function = tool.is_object() ? tool.find("function") : tool.end();
  return function != tool.end() && function->is_object() ? *function : tool;
}

struct ToolCall {
  Json name;
  Json arguments;
};

// `arguments` is an object, or its JSON as text, as the protocol of OpenAI has it.
Result<ToolCall> tool_call_of(const Json& entry) {
  const Json& function = function_of(entry);
  const auto malformed = [] { return invalid_argument(fmt::format("a tool call is not {}", kToolCallForms)); };
  if (!function.is_object() || text_of(function, "name").empty()) return malformed();
  ToolCall call{.name = function["name"], .arguments = Json::object()};
  const auto given = function.find("arguments");
  if (given == function.end()) return call;
  call.arguments = *given;
  if (given->is_string()) {
    const std::string& text = given->get_ref<const std::string&>();
    call.arguments = text.empty() ? Json::object() : Json::parse(text, nullptr, /*allow_exceptions=*/false);
  }
  if (call.arguments.is_discarded() || !call.arguments.is_object()) return malformed();
  if (deeper_than(call.arguments, kMaxTemplateInputDepth)) {
    return invalid_argument(
        fmt::format("the arguments of a tool call are nested deeper than {} levels", kMaxTemplateInputDepth));
  }
  return call;
}

class PiecesRenderer {
 public:
  PiecesRenderer(const TemplatePieces& pieces, const ChatTemplateInputs& inputs)
      : pieces_(pieces), inputs_(inputs), messages_(inputs.messages) {}

  Result<std::string> render() {
    if (!messages_.is_array()) return invalid_argument("messages are not a list");
    LANNER_RETURN_IF_ERROR(check_tools());
    text_ = pieces_.begin;
    LANNER_RETURN_IF_ERROR(add_beginning());
    for (; at_ < messages_.size(); ++at_) LANNER_RETURN_IF_ERROR(add_message(messages_[at_]));
    const bool open = !messages_.empty() && text_of(messages_.back(), "role") == "assistant";
    if (inputs_.add_generation_prompt && !open) {
      text_ += pieces_.open_answer.value_or(pieces_.assistant);
      const auto thinking = inputs_.extra.find("enable_thinking");
      if (thinking != inputs_.extra.end() && *thinking == false) text_ += pieces_.no_thinking;
    }
    return std::move(text_);
  }

 private:
  bool has_tools() const { return inputs_.tools.is_array() && !inputs_.tools.empty(); }

  Status check_tools() const {
    if (!has_tools() || pieces_.tool_form != ToolForm::kNone) return {};
    return unsupported(fmt::format("the chat template '{}' has no form for tools", pieces_.names.front()));
  }

  // The system turn, from the first message or the template's own, and the list of tools.
  Status add_beginning() {
    std::optional<std::string> system = pieces_.meta_instruction;
    if (!messages_.empty() && is_system(messages_.front())) {
      LANNER_ASSIGN_OR_RETURN(system, content_of(messages_.front()));
      at_ = 1;
    }
    if (has_tools() && pieces_.tool_form == ToolForm::kInSystem) {
      LANNER_ASSIGN_OR_RETURN(const std::string lines, tool_lines());
      std::string_view head = pieces_.tools;
      if (!system || system->empty()) head.remove_prefix(std::min(head.find_first_not_of('\n'), head.size()));
      system = fmt::format("{}{}{}{}", system.value_or(""), head, lines, pieces_.eotools);
    }
    if (system) add_system(*system);
    if (has_tools() && pieces_.tool_form == ToolForm::kPluginTurn) return add_plugin_turn();
    return {};
  }

  void add_system(std::string_view content) {
    if (pieces_.system_inside_user) {
      waiting_system_ += content;
      waiting_system_ += pieces_.eosys;
      return;
    }
    text_ += pieces_.system;
    text_ += content;
    text_ += pieces_.eosys;
  }

  Result<std::string> tool_lines() const {
    std::string lines;
    for (const Json& tool : inputs_.tools) {
      const Json wrapped = Json::object({{"type", "function"}, {"function", function_of(tool)}});
      LANNER_ASSIGN_OR_RETURN(const std::string line, json_as_python(wrapped.dump()));
      lines += "\n" + line;
    }
    return lines;
  }

  Status add_plugin_turn() {
    Json functions = Json::array();
    for (const Json& tool : inputs_.tools) functions.push_back(function_of(tool));
    LANNER_ASSIGN_OR_RETURN(const std::string list, json_as_python(functions.dump()));
    text_ += named(pieces_.system, "<|plugin|>") + list + pieces_.eosys;
    return {};
  }

  // "<|im_start|>system\n" with the name of who speaks in that role.
  static std::string named(std::string_view begin, std::string_view name) {
    while (!begin.empty() && begin.back() == '\n') begin.remove_suffix(1);
    return fmt::format("{} name={}\n", begin, name);
  }

  // InternLM2 tells turns of its plugins and of its interpreter by a name.
  std::string begin_of(const std::string& begin, const Json& message) const {
    if (pieces_.tool_form != ToolForm::kPluginTurn) return begin;
    const std::string_view name = text_of(message, "name");
    if (name == "plugin") return named(begin, "<|plugin|>");
    if (name == "interpreter") return named(begin, "<|interpreter|>");
    return begin;
  }

  Status add_message(const Json& message) {
    if (!message.is_object()) return invalid_argument("a message is not an object");
    const std::string_view role = text_of(message, "role");
    LANNER_ASSIGN_OR_RETURN(const std::string content, content_of(message));
    if (is_system(message)) {
      add_system(content);
    } else if (role == "user") {
      if (!pieces_.round.empty()) add_round();
      text_ += begin_of(pieces_.user, message) + std::exchange(waiting_system_, {}) + content + pieces_.eoh;
    } else if (role == "assistant") {
      return add_answer(message, content);
    } else if ((role == "tool" || role == "environment") && pieces_.tool) {
      add_tool_result(message, content);
    } else {
      return invalid_argument(
          fmt::format("the chat template '{}' knows no role '{}'", pieces_.names.front(), role.substr(0, 64)));
    }
    return {};
  }

  void add_round() {
    const std::size_t place = pieces_.round.find("{}");
    ++rounds_;
    text_ += pieces_.round.substr(0, place);
    if (place != std::string::npos) text_ += std::to_string(rounds_) + pieces_.round.substr(place + 2);
  }

  Status add_answer(const Json& message, const std::string& content) {
    text_ += begin_of(pieces_.assistant, message) + content;
    LANNER_RETURN_IF_ERROR(add_tool_calls(message, content));
    // An answer at the end is one to be continued.
    const bool last = at_ + 1 == messages_.size();
    if (!last || !inputs_.add_generation_prompt) text_ += pieces_.eoa + pieces_.separator;
    return {};
  }

  Status add_tool_calls(const Json& message, const std::string& content) {
    const auto calls = message.find("tool_calls");
    if (calls == message.end() || calls->is_null() || calls->empty()) return {};
    if (!calls->is_array()) return invalid_argument("a message's tool calls are not a list");
    if (pieces_.tool_form == ToolForm::kNone) {
      return unsupported(fmt::format("the chat template '{}' has no form for tool calls", pieces_.names.front()));
    }
    bool first = true;
    for (const Json& entry : *calls) {
      LANNER_ASSIGN_OR_RETURN(const ToolCall call, tool_call_of(entry));
      const bool plugin = pieces_.tool_form == ToolForm::kPluginTurn;
      const Json object = Json::object({{"name", call.name}, {plugin ? "parameters" : "arguments", call.arguments}});
      LANNER_ASSIGN_OR_RETURN(const std::string json, json_as_python(object.dump()));
      if (plugin) {
        text_ += fmt::format("<|action_start|><|plugin|>\n{}<|action_end|>", json);
      } else {
        const bool behind_text = !first || !content.empty();
        text_ += fmt::format("{}<tool_call>\n{}\n</tool_call>", behind_text ? "\n" : "", json);
      }
      first = false;
    }
    return {};
  }

  // Results of tools that follow each other share a turn where tools stand in the user's.
  void add_tool_result(const Json& message, const std::string& content) {
    const bool shares = pieces_.tool_form == ToolForm::kInSystem && pieces_.tool->starts_with(pieces_.user) &&
                        pieces_.eotool.ends_with(pieces_.eoh);
    const auto is_tool = [&](std::size_t index) { return text_of(messages_[index], "role") == "tool"; };
    std::string begin = begin_of(*pieces_.tool, message);
    std::string end = pieces_.eotool;
    if (shares && at_ > 0 && is_tool(at_ - 1))
      begin = fmt::format("\n{}", std::string_view(begin).substr(pieces_.user.size()));
    if (shares && at_ + 1 < messages_.size() && messages_[at_ + 1].is_object() && is_tool(at_ + 1)) {
      end.resize(end.size() - pieces_.eoh.size());
    }
    text_ += begin + content + end;
  }

  const TemplatePieces& pieces_;
  const ChatTemplateInputs& inputs_;
  const Json& messages_;
  std::size_t at_ = 0;
  int rounds_ = 0;
  std::string text_;
  std::string waiting_system_;
};

}  // namespace

Result<std::string> render_pieces(const TemplatePieces& pieces, const ChatTemplateInputs& inputs) {
  return PiecesRenderer(pieces, inputs).render();
}

}  // namespace lanner
