#include "pipeline/template_inputs.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "pipeline/check_utf8.h"

namespace lanner {
namespace {

using Json = nlohmann::ordered_json;

// The parser is recursive no deeper than this; the chat template has a lower limit of its own.
constexpr int kMaxDepth = 256;

Result<Json> parse(std::string_view text, std::string_view what) {
  LANNER_RETURN_IF_ERROR(check_utf8(text, what));
  bool too_deep = false;
  const auto within_depth = [&](int depth, Json::parse_event_t /*event*/, Json& /*value*/) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  Json value = Json::parse(text, within_depth, /*allow_exceptions=*/false);
  if (too_deep) return invalid_argument(fmt::format("{} is nested deeper than {} levels", what, kMaxDepth));
  if (value.is_discarded()) return invalid_argument(fmt::format("{} is not valid JSON", what));
  return value;
}

Result<Json> parse_list(const std::string& text, std::string_view what) {
  if (text.empty()) return Json();
  LANNER_ASSIGN_OR_RETURN(Json value, parse(text, what));
  if (!value.is_null() && !value.is_array()) return invalid_argument(fmt::format("{} is not a list", what));
  return value;
}

Result<Json> parse_object(const std::string& text, std::string_view what) {
  if (text.empty()) return Json::object();
  LANNER_ASSIGN_OR_RETURN(Json value, parse(text, what));
  if (value.is_null()) return Json::object();
  if (!value.is_object()) return invalid_argument(fmt::format("{} is not an object", what));
  return value;
}

Result<Json> message_json(const Message& message, std::string_view what) {
  LANNER_RETURN_IF_ERROR(check_utf8(message.role, fmt::format("the role of {}", what)));
  LANNER_RETURN_IF_ERROR(check_utf8(message.content, what));
  Json json = {{"role", message.role}, {"content", message.content}};
  LANNER_ASSIGN_OR_RETURN(const Json more, parse_object(message.more, fmt::format("more of {}", what)));
  for (const auto& [key, value] : more.items()) {
    if (key == "role") return invalid_argument(fmt::format("{} has its role twice", what));
    if (key == "content" && !message.content.empty()) {
      return invalid_argument(fmt::format("{} has its content twice", what));
    }
    if (key == "content") {
      json[key] = value;
    } else {  // appended to the vector below the map: the keys differ, and a search each would take quadratic time
      json.get_ref<Json::object_t&>().push_back({key, value});
    }
  }
  return json;
}

// Takes one of Transformers' own arguments out of the template's variables.
Status take_flag(Json& variables, const char* name, bool& flag) {
  const auto found = variables.find(name);
  if (found == variables.end()) return {};
  if (!found->is_boolean()) return invalid_argument(fmt::format("\"{}\" is neither true nor false", name));
  flag = found->get<bool>();
  variables.erase(found);
  return {};
}

}  // namespace

Result<ChatTemplateInputs> template_inputs(const GenerationRequest& request) {
  ChatTemplateInputs inputs;
  for (std::size_t i = 0; i < request.messages.size(); ++i) {
    LANNER_ASSIGN_OR_RETURN(Json message, message_json(request.messages[i], fmt::format("message {}", i + 1)));
    inputs.messages.push_back(std::move(message));
  }
  LANNER_ASSIGN_OR_RETURN(inputs.tools, parse_list(request.tools, "the list of tools"));
  LANNER_ASSIGN_OR_RETURN(inputs.documents, parse_list(request.documents, "the list of documents"));
  LANNER_ASSIGN_OR_RETURN(inputs.extra, parse_object(request.chat_template_kwargs, "chat_template_kwargs"));
  LANNER_RETURN_IF_ERROR(take_flag(inputs.extra, "add_generation_prompt", inputs.add_generation_prompt));
  LANNER_RETURN_IF_ERROR(take_flag(inputs.extra, "continue_final_message", inputs.continue_final_message));
  return inputs;
}

}  // namespace lanner
