#include "pipeline/choose_template.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "text/template_choice.h"

namespace lanner {
namespace {

constexpr std::string_view kNoTemplate =
    "the model has no chat template: messages reach it as plain text (--chat-template sets one)";

std::string chosen_note(std::string_view name) {
  return fmt::format(
      "the model has no chat template: taking the built-in '{}', by its path or architecture (--chat-template sets "
      "one)",
      name);
}

/// What config.json calls the model's class; empty where it does not say.
std::string architecture_of(const model::Checkpoint& checkpoint) {
  const auto list = checkpoint.config().find("architectures");
  if (list == checkpoint.config().end() || !list->is_array() || list->empty()) return {};
  return list->front().is_string() ? list->front().get<std::string>() : std::string();
}

}  // namespace

Result<ChosenTemplate> choose_template(const model::Checkpoint& checkpoint, const std::string& option) {
  std::string note;
  const auto choose = [&]() -> Result<ChatTemplate> {
    if (!option.empty()) return ChatTemplate::from_option(option, checkpoint.special_tokens());
    const std::optional<std::string> source = checkpoint.chat_template();
    if (source) return ChatTemplate::from_jinja(*source, checkpoint.special_tokens(), checkpoint.path());
    const std::string_view name = builtin_template_for(checkpoint.path(), architecture_of(checkpoint));
    note = name.empty() ? std::string(kNoTemplate) : chosen_note(name);
    return ChatTemplate::from_name(name.empty() ? "base" : name, checkpoint.special_tokens());
  };
  LANNER_ASSIGN_OR_RETURN(ChatTemplate chosen, choose());
  return ChosenTemplate{.chat_template = std::move(chosen), .note = std::move(note)};
}

Result<std::vector<std::int32_t>> encode_prompt(const Tokenizer& tokenizer, const SpecialTokens& special_tokens,
                                                std::string_view prompt) {
  const bool has_bos = !special_tokens.bos.empty() && prompt.starts_with(special_tokens.bos);
  return tokenizer.encode(prompt, {.add_special_tokens = !has_bos});
}

}  // namespace lanner
