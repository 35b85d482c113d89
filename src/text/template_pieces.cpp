#include "text/template_pieces.h"

#include <fmt/format.h>

#include <utility>

#include "text/chat_template.h"
#include "text/rust_call.h"

namespace lanner {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxJsonBytes = 1 << 20;

std::string_view role_of(const Json& message) {
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) return {};
  return role->get_ref<const std::string&>();
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

class PiecesRenderer {
 public:
  PiecesRenderer(const TemplatePieces& pieces, const ChatTemplateInputs& inputs) : pieces_(pieces), inputs_(inputs) {}

  Result<std::string> render() {
    if (!inputs_.messages.is_array()) return invalid_argument("messages are not a list");
    text_ = pieces_.begin;
    const bool own_system = !inputs_.messages.empty() && is_system(inputs_.messages.front());
    if (pieces_.meta_instruction && !own_system) add_system(*pieces_.meta_instruction);
    if (!own_system) LANNER_RETURN_IF_ERROR(add_tools());
    std::size_t left = inputs_.messages.size();
    for (const Json& message : inputs_.messages) {
      LANNER_RETURN_IF_ERROR(add_message(message, --left == 0));
      if (own_system && left + 1 == inputs_.messages.size()) LANNER_RETURN_IF_ERROR(add_tools());
    }
    const bool open = !inputs_.messages.empty() && role_of(inputs_.messages.back()) == "assistant";
    if (inputs_.add_generation_prompt && !open) text_ += pieces_.assistant;
    return std::move(text_);
  }

 private:
  static bool is_system(const Json& message) {
    const std::string_view role = message.is_object() ? role_of(message) : std::string_view();
    return role == "system" || role == "developer";
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

  Status add_tools() {
    if (inputs_.tools.is_null() || (inputs_.tools.is_array() && inputs_.tools.empty())) return {};
    if (!pieces_.tools) {
      return unsupported(fmt::format("the chat template '{}' has no form for tools", pieces_.names.front()));
    }
    LANNER_ASSIGN_OR_RETURN(const std::string list, json_as_python(inputs_.tools.dump()));
    text_ += *pieces_.tools;
    text_ += list;
    text_ += pieces_.eotools;
    return {};
  }

  Status add_message(const Json& message, bool last) {
    if (!message.is_object()) return invalid_argument("a message is not an object");
    const std::string_view role = role_of(message);
    LANNER_ASSIGN_OR_RETURN(const std::string content, content_of(message));
    if (is_system(message)) {
      add_system(content);
    } else if (role == "user") {
      text_ += pieces_.user + std::exchange(waiting_system_, {}) + content + pieces_.eoh;
    } else if (role == "assistant") {
      if (message.contains("tool_calls") && !message["tool_calls"].empty()) {
        return unsupported(fmt::format("the chat template '{}' has no form for tool calls", pieces_.names.front()));
      }
      text_ += pieces_.assistant + content;
      // An answer at the end is one to be continued.
      if (!last || !inputs_.add_generation_prompt) text_ += pieces_.eoa + pieces_.separator;
    } else if ((role == "tool" || role == "environment") && pieces_.tool) {
      text_ += *pieces_.tool + content + pieces_.eotool;
    } else {
      return invalid_argument(
          fmt::format("the chat template '{}' knows no role '{}'", pieces_.names.front(), role.substr(0, 64)));
    }
    return {};
  }

  const TemplatePieces& pieces_;
  const ChatTemplateInputs& inputs_;
  std::string text_;
  std::string waiting_system_;
};

struct TextKey {
  std::string_view key;
  std::string TemplatePieces::* piece;
};

constexpr TextKey kTextKeys[] = {
    {"system", &TemplatePieces::system},       {"eosys", &TemplatePieces::eosys},
    {"user", &TemplatePieces::user},           {"eoh", &TemplatePieces::eoh},
    {"assistant", &TemplatePieces::assistant}, {"eoa", &TemplatePieces::eoa},
    {"separator", &TemplatePieces::separator}, {"eotool", &TemplatePieces::eotool},
};

Status set_stop_words(TemplatePieces& pieces, const Json& value) {
  pieces.stop_words.clear();
  if (!value.is_array()) return invalid_argument("\"stop_words\" is not a list of strings");
  for (const Json& word : value) {
    if (!word.is_string()) return invalid_argument("\"stop_words\" is not a list of strings");
    pieces.stop_words.push_back(word.get<std::string>());
  }
  return {};
}

Status set_capability(TemplatePieces& pieces, const Json& value) {
  if (value == "chat") return {};
  if (value != "completion") return unsupported("\"capability\" is neither \"chat\" nor \"completion\"");
  // Plain continuation: the text goes to the model as it is.
  TemplatePieces plain;
  plain.names = pieces.names;
  plain.stop_words = pieces.stop_words;
  pieces = std::move(plain);
  return {};
}

Status set_key(TemplatePieces& pieces, const std::string& key, const Json& value) {
  if (value.is_null() || key == "model_name" || key == "capability") return {};
  if (key == "stop_words") return set_stop_words(pieces, value);
  if (!value.is_string()) return invalid_argument(fmt::format("\"{}\" is not a string", key.substr(0, 64)));
  if (key == "meta_instruction") {
    pieces.meta_instruction = value.get<std::string>();
    return {};
  }
  if (key == "tool") {
    pieces.tool = value.get<std::string>();
    return {};
  }
  for (const TextKey& known : kTextKeys) {
    if (known.key != key) continue;
    pieces.*known.piece = value.get<std::string>();
    return {};
  }
  return invalid_argument(fmt::format("unknown key \"{}\" in a chat template", key.substr(0, 64)));
}

Result<TemplatePieces> pieces_from_object(const Json& object) {
  TemplatePieces pieces;
  const auto name = object.find("model_name");
  if (name != object.end() && !name->is_null()) {
    if (!name->is_string()) return invalid_argument("\"model_name\" is not a string");
    // As in LMDeploy, an unknown name is that of a new template.
    Result<TemplatePieces> base = find_builtin_template(name->get_ref<const std::string&>());
    if (base.ok()) pieces = *std::move(base);
    pieces.names.insert(pieces.names.begin(), name->get<std::string>());
  }
  if (pieces.names.empty()) pieces.names = {"custom"};
  for (const auto& [key, value] : object.items()) LANNER_RETURN_IF_ERROR(set_key(pieces, key, value));
  const auto capability = object.find("capability");
  if (capability != object.end() && !capability->is_null()) {
    LANNER_RETURN_IF_ERROR(set_capability(pieces, *capability));
  }
  return pieces;
}

}  // namespace

Result<TemplatePieces> template_pieces_from_json(std::string_view json, std::string_view origin) {
  if (json.size() > kMaxJsonBytes) {
    return with_context(invalid_argument(fmt::format("more than {} bytes", kMaxJsonBytes)), origin);
  }
  const Json object = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) return with_context(invalid_argument("not valid JSON"), origin);
  if (!object.is_object()) return with_context(invalid_argument("not a JSON object"), origin);
  Result<TemplatePieces> pieces = pieces_from_object(object);
  if (!pieces.ok()) return with_context(pieces.status(), origin);
  return pieces;
}

Result<std::string> render_pieces(const TemplatePieces& pieces, const ChatTemplateInputs& inputs) {
  return PiecesRenderer(pieces, inputs).render();
}

}  // namespace lanner
