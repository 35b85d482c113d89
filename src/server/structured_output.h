#pragma once
// What answers are held to: response_format, calls that a request demands, and the thoughts that may come before.
// Written down as one grammar. docs/structured-output.md tells it to users.

#include <optional>
#include <string>

#include "lanner/pipeline.h"
#include "server/answer_parser.h"
#include "server/chat_tools.h"
#include "server/fields.h"

namespace lanner::server {

/// `body["response_format"]`; nothing is set for text.
std::optional<Refusal> read_response_format(const Json& body, std::optional<GrammarSource>& format);

/// The grammar of a request's answers: what `format` says, or the calls that `tools` demands, or both where tools may
/// be called, with thoughts in front where the reading has them. Nothing where answers are free. Marks that are special
/// tokens of the model are written as such.
std::optional<Refusal> combine_grammar(const Pipeline& pipeline, const std::optional<GrammarSource>& format,
                                       const ToolUse& tools, const AnswerReading& reading,
                                       std::optional<GrammarSource>& grammar);

/// combine_grammar(), compiled into the request.
std::optional<Refusal> set_grammar(Pipeline& pipeline, const Json& body, const ToolUse& tools,
                                   const AnswerReading& reading, GenerationRequest& request);

/// Whether text spells special tokens of the model, which answers show only on request.
bool spells_special_tokens(const Pipeline& pipeline, std::string_view text);

}  // namespace lanner::server
