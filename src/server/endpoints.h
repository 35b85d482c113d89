#pragma once
// The endpoints: from a checked call to an answer. Each may be called from any thread.

#include <optional>

#include "server/context.h"
#include "server/refusal.h"

namespace lanner::server {

// chat_completions.cpp, completions.cpp, generate.cpp, interactive.cpp
HttpReply chat_completions(Context& context, const Call& call);
HttpReply completions(Context& context, const Call& call);
HttpReply generate(Context& context, const Call& call);
HttpReply interactive(Context& context, const Call& call);

// messages.cpp: Anthropic's protocol
HttpReply messages(Context& context, const Call& call);
HttpReply count_message_tokens(Context& context, const Call& call);
HttpReply list_anthropic_models(Context& context, const Call& call);
/// A refusal as that protocol has it; other answers as they are.
HttpReply in_anthropic_form(HttpReply reply);

// responses.cpp
HttpReply responses(Context& context, const Call& call);

// prompt_endpoints.cpp: what is computed of prompts alone
HttpReply embeddings(Context& context, const Call& call);
HttpReply pooling(Context& context, const Call& call);
HttpReply get_ppl(Context& context, const Call& call);

// text_endpoints.cpp
HttpReply encode(Context& context, const Call& call);
HttpReply tokenize(Context& context, const Call& call);
HttpReply detokenize(Context& context, const Call& call);

// running_endpoints.cpp
HttpReply show_health(Context& context, const Call& call);
HttpReply show_ready(Context& context, const Call& call);
HttpReply show_live(Context& context, const Call& call);
/// Whether abort_request() may be called at all.
std::optional<Refusal> abort_gate(const ServiceOptions& options);
HttpReply abort_request(Context& context, const Call& call);
/// Whether terminate() may be called at all.
std::optional<Refusal> terminate_gate(const ServiceOptions& options);
HttpReply terminate(Context& context, const Call& call);

// sleep_endpoints.cpp
/// Whether the first two may be called at all.
std::optional<Refusal> sleep_gate(const ServiceOptions& options);
HttpReply fall_asleep(Context& context, const Call& call);
HttpReply wake_up(Context& context, const Call& call);
HttpReply show_sleeping(Context& context, const Call& call);
/// Whether the model has been given back.
bool is_asleep(const Context& context);

// model_endpoints.cpp
HttpReply list_models(Context& context, const Call& call);
HttpReply show_model(Context& context, const Call& call);
HttpReply show_version(Context& context, const Call& call);
HttpReply show_metrics(Context& context, const Call& call);

/// An answer of 200 with this body.
HttpReply json_reply(const Json& body);

}  // namespace lanner::server
