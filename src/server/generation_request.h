#pragma once
// From a checked body to what the pipeline is asked. Pure functions.

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/pipeline.h"
#include "server/fields.h"

namespace lanner::server {

/// How to draw and where to stop. `max_new_tokens` is as given here; fields for it differ between endpoints.
GenerationConfig generation_config(const Json& body, std::int64_t max_new_tokens);

/// stream_options; without it nothing is set.
std::optional<Refusal> read_stream_options(const Json& body, bool& include_usage);

/// The messages of `body[name]`, which is a list of objects. Their parts of text are joined with line ends; a developer
/// is the system. What else a message has goes to the chat template as it is.
std::optional<Refusal> read_messages(const Json& body, std::string_view name, std::vector<Message>& messages);

/// Texts that end an answer: one, or a list.
std::vector<std::string> read_stops(const Json& stops);

/// `object[name]`, a string that has to be there; `where` names the object in a refusal.
std::optional<Refusal> read_string(const Json& object, const char* name, const std::string& where, std::string& text);

/// The types of parts that hold text.
using PartTypes = std::initializer_list<std::string_view>;
/// Adds the text of one part; `where` names it in a refusal.
std::optional<Refusal> read_text_part(const Json& part, const std::string& where, PartTypes types, std::string& text);
/// A string, or a list of parts, whose texts are joined with line ends; nullptr is refused.
std::optional<Refusal> read_content(const Json* content, const std::string& where, PartTypes types, std::string& text);

/// chat_template_kwargs and the fields that are shorthands for one of them.
std::optional<Refusal> read_template_variables(const Json& body, std::string& variables);

/// One prompt or several, as text or token ids.
std::vector<GenerationRequest> read_prompts(const Json& prompt);

/// Refuses text that cannot fit a context of `session_len` tokens, before time is spent on making tokens of it.
std::optional<Refusal> check_size(const GenerationRequest& request, std::int32_t session_len);
/// The tokens of a prompt that fits.
Result<std::vector<std::int32_t>> prompt_ids(Pipeline& pipeline, const GenerationRequest& request);
/// check_size() for text that is only to be tokenized.
std::optional<Refusal> check_text_size(std::string_view text);

/// Nothing when `body` names no model, or this one.
std::optional<Refusal> check_model(const Json& body, const std::string& served);

/// "chatcmpl-1f0c…": a prefix and 24 random letters.
std::string random_id(std::string_view prefix);
std::int64_t unix_seconds();

}  // namespace lanner::server
