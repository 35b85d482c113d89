#pragma once
// What answers are held to: formats, calls that a request demands or wants strict, and the thoughts that may come
// before. Written down as one grammar. docs/structured-output.md tells it to users.

#include <optional>
#include <string>

#include "lanner/pipeline.h"
#include "server/answer_parser.h"
#include "server/chat_tools.h"
#include "server/fields.h"

namespace lanner::server {

/// `body["response_format"]`; nothing is set for text.
std::optional<Refusal> read_response_format(const Json& body, std::optional<GrammarSource>& format);
/// The same of protocols that write a schema beside its type: text, json_object and json_schema. `where` names it.
std::optional<Refusal> read_flat_format(const Json& given, const std::string& where,
                                        std::optional<GrammarSource>& format);

/// The grammar of a request's answers: what `format` says, or the calls that `tools` demands, or both where tools may
/// be called, with thoughts in front where the reading has them. Without either an answer is free, but for calls of
/// strict tools; nothing is set where there are none. Marks that are special tokens of the model are written as such.
std::optional<Refusal> answer_grammar(const Pipeline& pipeline, const std::optional<GrammarSource>& format,
                                      const ToolUse& tools, const AnswerReading& reading,
                                      std::optional<GrammarSource>& grammar);

/// Compiles it into the request; `field` is where a client gave it.
std::optional<Refusal> set_grammar(Pipeline& pipeline, const GrammarSource& grammar, const std::string& field,
                                   GenerationRequest& request);

/// Whether text spells special tokens of the model, which answers show only on request.
bool spells_special_tokens(const Pipeline& pipeline, std::string_view text);

}  // namespace lanner::server
