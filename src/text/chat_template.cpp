#include "text/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "core/mapped_file.h"
#include "text/lanner_text.h"
#include "text/rust_call.h"
#include "text/template_pieces.h"

namespace lanner {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kMaxFileBytes = 1 << 20;

struct ReleaseTemplate {
  void operator()(LannerTemplate* handle) const { lanner_template_free(handle); }
};

Status check_inputs(const ChatTemplateInputs& inputs) {
  if (!inputs.messages.is_array()) return invalid_argument("messages are not a list");
  if (!inputs.tools.is_null() && !inputs.tools.is_array()) return invalid_argument("tools are not a list");
  if (!inputs.documents.is_null() && !inputs.documents.is_array()) return invalid_argument("documents are not a list");
  if (!inputs.extra.is_null() && !inputs.extra.is_object()) {
    return invalid_argument("the template's variables are not an object");
  }
  for (const Json* part : {&inputs.messages, &inputs.tools, &inputs.documents, &inputs.extra}) {
    if (deeper_than(*part, kMaxTemplateInputDepth)) {
      return invalid_argument(fmt::format("messages, tools, documents or variables are nested deeper than {} levels",
                                          kMaxTemplateInputDepth));
    }
  }
  return {};
}

// The template's variables, by the names that Transformers gives them.
Result<Json> jinja_variables(const ChatTemplateInputs& inputs, const SpecialTokens& tokens) {
  Json variables = {{"messages", inputs.messages},
                    {"tools", inputs.tools},
                    {"documents", inputs.documents},
                    {"add_generation_prompt", inputs.add_generation_prompt && !inputs.continue_final_message}};
  const std::pair<const char*, const std::string*> special[] = {
      {"bos_token", &tokens.bos}, {"eos_token", &tokens.eos}, {"unk_token", &tokens.unk}, {"pad_token", &tokens.pad}};
  for (const auto& [name, text] : special) {
    if (!text->empty()) variables[name] = *text;
  }
  if (inputs.extra.is_null()) return variables;
  for (const auto& [name, value] : inputs.extra.items()) {
    if (name == "messages" || name == "tools" || name == "documents" || name == "add_generation_prompt") {
      return invalid_argument(fmt::format("the template's variable '{}' cannot be set twice", name));
    }
    variables[name] = value;
  }
  return variables;
}

const Json* member(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found == object.end() ? nullptr : &*found;
}

// The prompt up to the end of the last message's text, which the template may have trimmed.
Result<std::string> cut_after_final_message(std::string prompt, const Json& messages) {
  const auto refuse = [](const char* cause) {
    return invalid_argument(fmt::format("the last message cannot be continued: {}", cause));
  };
  const Json* content = messages.empty() ? nullptr : member(messages.back(), "content");
  if (content != nullptr && content->is_array() && !content->empty()) content = member(content->back(), "text");
  if (content == nullptr || !content->is_string()) return refuse("it has no text");
  constexpr std::string_view kBlank = " \t\r\n";
  std::string_view text = content->get_ref<const std::string&>();
  const auto end_of = [&](std::string_view part) {
    const std::size_t at = prompt.rfind(part);
    return at == std::string::npos ? at : at + part.size();
  };
  std::size_t end = end_of(text);
  if (end == std::string::npos) {
    text.remove_prefix(std::min(text.find_first_not_of(kBlank), text.size()));
    while (!text.empty() && kBlank.find(text.back()) != std::string_view::npos) text.remove_suffix(1);
    end = end_of(text);
  }
  if (end == std::string::npos) return refuse("the chat template changes its text");
  prompt.resize(end);
  return prompt;
}

}  // namespace

struct ChatTemplate::Body {
  std::string origin{};
  SpecialTokens tokens{};
  TemplatePieces pieces{};                                   // when there is no Jinja
  std::unique_ptr<LannerTemplate, ReleaseTemplate> jinja{};  // null: made of pieces

  Result<std::string> render_jinja(const ChatTemplateInputs& inputs) const {
    LANNER_ASSIGN_OR_RETURN(const Json variables, jinja_variables(inputs, tokens));
    const std::string context = variables.dump();
    LannerBuffer text = {nullptr, 0};
    LannerBuffer error = {nullptr, 0};
    const std::int32_t code = lanner_template_render(jinja.get(), to_slice(context), &text, &error);
    if (code != LANNER_TEXT_OK) return with_context(take_error(code, error), origin);
    std::string prompt = take_buffer(text);
    if (!inputs.continue_final_message) return prompt;
    return cut_after_final_message(std::move(prompt), inputs.messages);
  }
};

Result<ChatTemplate> ChatTemplate::from_jinja(std::string_view source, SpecialTokens tokens, std::string_view origin) {
  LannerTemplate* handle = nullptr;
  LannerBuffer error = {nullptr, 0};
  const std::int32_t code = lanner_template_compile(to_slice(source), &handle, &error);
  if (code != LANNER_TEXT_OK) return with_context(take_error(code, error), origin);
  auto body = std::make_shared<Body>();
  body->jinja.reset(handle);
  body->origin = origin;
  body->tokens = std::move(tokens);
  return ChatTemplate(std::move(body));
}

Result<ChatTemplate> ChatTemplate::from_name(std::string_view builtin_name, SpecialTokens tokens) {
  auto body = std::make_shared<Body>();
  LANNER_ASSIGN_OR_RETURN(body->pieces, find_builtin_template(builtin_name));
  body->tokens = std::move(tokens);
  return ChatTemplate(std::move(body));
}

Result<ChatTemplate> ChatTemplate::from_option(std::string_view value, SpecialTokens tokens) {
  std::string text(value);
  std::string origin = "--chat-template";
  const std::size_t first = value.find_first_not_of(" \t\r\n");
  const bool is_json_text = first != std::string_view::npos && value[first] == '{';
  if (!is_json_text) {
    const std::string extension = std::filesystem::path(value).extension().string();
    const bool is_jinja = extension == ".jinja" || extension == ".jinja2" || extension == ".j2";
    if (!is_jinja && extension != ".json") return from_name(value, std::move(tokens));
    origin = text;
    LANNER_ASSIGN_OR_RETURN(text, read_file(origin, kMaxFileBytes));
    if (is_jinja) return from_jinja(text, std::move(tokens), origin);
  }
  auto body = std::make_shared<Body>();
  LANNER_ASSIGN_OR_RETURN(body->pieces, template_pieces_from_json(text, origin));
  body->tokens = std::move(tokens);
  return ChatTemplate(std::move(body));
}

Result<std::string> ChatTemplate::render(const ChatTemplateInputs& inputs) const {
  LANNER_RETURN_IF_ERROR(check_inputs(inputs));
  try {
    return body_->jinja ? body_->render_jinja(inputs) : render_pieces(body_->pieces, inputs);
  } catch (const Json::exception&) {  // the only exception that dump() throws: text that is not UTF-8
    return invalid_argument("a message, tool or variable is not UTF-8");
  }
}

const std::vector<std::string>& ChatTemplate::stop_words() const { return body_->pieces.stop_words; }

}  // namespace lanner
