#pragma once
// Chat messages to the one prompt that a model was trained on.
//
// Two kinds behind one type: Jinja, as it stands in a model's tokenizer_config.json, rendered as Hugging Face
// Transformers does; and templates made of pieces, which are built in or written as JSON (template_pieces.h).
//
//   LANNER_ASSIGN_OR_RETURN(ChatTemplate chat, ChatTemplate::from_name("internlm2", {}));
//   ChatTemplateInputs inputs;
//   inputs.messages = {{{"role", "user"}, {"content", "Hello"}}};
//   LANNER_ASSIGN_OR_RETURN(std::string prompt, chat.render(inputs));
//
// A prompt may begin with the text of the BOS token (most Jinja templates, llama3): then tokenize it without
// EncodeOptions::add_special_tokens, or BOS stands there twice.
//
// Ownership: a cheap value; copies share the compiled template. Threads: immutable, render from any thread.
// Errors: templates and messages are not trusted. Steps, memory and output are limited (kResourceExhausted); a
// template that refuses its messages (raise_exception) is kInvalidArgument with its own words.

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"

namespace lanner {

/// How the tokenizer spells its special tokens; empty ones are not defined for the template.
struct SpecialTokens {
  std::string bos{};
  std::string eos{};
  std::string unk{};
  std::string pad{};
};

struct ChatTemplateInputs {
  /// Objects as in the protocol of OpenAI: role, content (text or a list of parts), tool_calls, tool_call_id, name,
  /// reasoning_content. A tool call's arguments may be an object or its JSON as text.
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  nlohmann::ordered_json tools;      // null or a list of functions
  nlohmann::ordered_json documents;  // null or a list
  bool add_generation_prompt = true;
  /// The prompt ends within the last message, for the model to go on with it. Templates made of pieces do so with
  /// every answer that stands at the end.
  bool continue_final_message = false;
  nlohmann::ordered_json extra = nlohmann::ordered_json::object();  // more variables, such as enable_thinking
};

class ChatTemplate {
 public:
  /// `source` is Jinja, at most 1 MiB; `origin` (its path) only serves error messages.
  static Result<ChatTemplate> from_jinja(std::string_view source, SpecialTokens tokens, std::string_view origin);
  /// A built-in template. kNotFound, with the nearest name, for an unknown one.
  static Result<ChatTemplate> from_name(std::string_view builtin_name, SpecialTokens tokens);
  /// What --chat-template accepts: a built-in name, the path of a .jinja or .json file, or JSON text.
  static Result<ChatTemplate> from_option(std::string_view value, SpecialTokens tokens);

  Result<std::string> render(const ChatTemplateInputs& inputs) const;
  /// Texts at which an answer ends, beyond the tokenizer's EOS.
  const std::vector<std::string>& stop_words() const;

 private:
  struct Body;
  explicit ChatTemplate(std::shared_ptr<const Body> body) : body_(std::move(body)) {}

  std::shared_ptr<const Body> body_;
};

}  // namespace lanner
