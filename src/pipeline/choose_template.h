#pragma once
// Which chat template renders a model's messages, and how what it renders becomes tokens.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace lanner {

struct ChosenTemplate {
  ChatTemplate chat_template;
  std::string note;  // for whoever runs the program, where the model brings none; else empty
};

/// `option` is that of --chat-template; empty: the model's own, else the built-in one that fits its path or
/// architecture, else none: messages are then plain text.
Result<ChosenTemplate> choose_template(const model::Checkpoint& checkpoint, const std::string& option);

/// The tokens of a prompt, special tokens recognized. Many templates write BOS themselves; then the tokenizer adds
/// none.
Result<std::vector<std::int32_t>> encode_prompt(const Tokenizer& tokenizer, const SpecialTokens& special_tokens,
                                                std::string_view prompt);

}  // namespace lanner
