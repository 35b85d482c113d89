#pragma once
// From a conversation to what the pipeline is asked, with tools, thoughts and structured output. Shared by the
// endpoints of all protocols that know conversations.

#include <optional>
#include <string>

#include "server/answer_parser.h"
#include "server/chat_tools.h"
#include "server/context.h"
#include "server/fields.h"
#include "server/refusal.h"

namespace lanner::server {

/// messages and what the chat template is given besides, of /v1/chat/completions.
std::optional<Refusal> read_conversation(const Json& body, GenerationRequest& request);

/// The fields of a body that set variables of chat templates, for read_template_variables(); a protocol that has more
/// adds them.
Json given_variables(const Json& body);
/// The `more` of an assistant's message that thought this and made these calls; empty where it did neither.
std::string assistant_more(const std::string& thoughts, Json calls);

/// What a request asks of its answers, besides how tokens are drawn.
struct AnswerDemands {
  ToolUse tools{};
  std::optional<GrammarSource> format{};
  std::string format_field = "response_format";  // what the client calls it
};

/// Shows the tools to the chat template, which is refused where it has no form for them. The conversation has been
/// read.
std::optional<Refusal> show_tools(Pipeline& pipeline, const ToolUse& tools, GenerationRequest& request);

/// The demands, into the request, whose conversation and config have been read; and how its answers are to be read.
std::optional<Refusal> prepare_answer(Context& context, const AnswerDemands& demands, GenerationRequest& request,
                                      AnswerReading& reading);

}  // namespace lanner::server
