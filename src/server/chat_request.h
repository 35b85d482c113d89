#pragma once
// From a conversation to what the pipeline is asked, with tools, thoughts and structured output.

#include <optional>

#include "server/answer_parser.h"
#include "server/context.h"
#include "server/fields.h"
#include "server/refusal.h"

namespace lanner::server {

/// messages and what the chat template is given besides.
std::optional<Refusal> read_conversation(const Json& body, GenerationRequest& request);

/// tools, tool_choice and response_format, into the request, whose conversation and config have been read; and how its
/// answers are to be read.
std::optional<Refusal> prepare_answer(Context& context, const Json& body, GenerationRequest& request,
                                      AnswerReading& reading);

}  // namespace lanner::server
