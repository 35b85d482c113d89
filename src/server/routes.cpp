#include "server/routes.h"

#include <array>

#include "server/chat_page.h"
#include "server/endpoints.h"
#include "server/request_fields.h"

namespace lanner::server {
namespace {

constexpr std::string_view kRest = "{model}";

HttpReply show_openapi(Context& context, const Call& /*call*/) { return json_reply(openapi_document(context.options)); }

HttpReply show_docs(Context& context, const Call& call) {
  HttpReply reply;
  reply.content_type = "text/html; charset=utf-8";
  reply.body = docs_page(context.options, call.request.header("host"));
  reply.headers = {
      {"Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}};
  return reply;
}

HttpReply show_chat(Context& /*context*/, const Call& /*call*/) {
  HttpReply reply;
  reply.content_type = "text/html; charset=utf-8";
  reply.body = chat_page().html;
  reply.headers = {{"Content-Security-Policy", chat_page().policy},
                   {"Referrer-Policy", "no-referrer"},
                   {"Cache-Control", "no-cache"}};
  return reply;
}

constexpr std::array kRoutes{
    Route{.method = "GET",
          .path = "/v1/models",
          .group = "Models",
          .summary = "The model that is served",
          .handle = list_models},
    Route{
        .method = "GET", .path = "/v1/models/{model}", .group = "Models", .summary = "One model", .handle = show_model},
    Route{.method = "POST",
          .path = "/v1/chat/completions",
          .group = "Generating",
          .summary = "Answers a conversation (OpenAI)",
          .handle = chat_completions,
          .pace = Pace::kSoon,
          .fields = chat_fields,
          .new_work = true,
          .takes_place = true},
    Route{.method = "POST",
          .path = "/v1/completions",
          .group = "Generating",
          .summary = "Goes on with a text (OpenAI)",
          .handle = completions,
          .pace = Pace::kSoon,
          .fields = completion_fields,
          .new_work = true,
          .takes_place = true},
    Route{.method = "POST",
          .path = "/v1/responses",
          .group = "Generating",
          .summary = "Answers a conversation (OpenAI Responses)",
          .handle = responses,
          .pace = Pace::kSoon,
          .fields = response_fields,
          .new_work = true,
          .takes_place = true},
    Route{.method = "POST",
          .path = "/v1/messages",
          .group = "Generating",
          .summary = "Answers a conversation (Anthropic)",
          .handle = messages,
          .pace = Pace::kSoon,
          .fields = message_fields,
          .new_work = true,
          .takes_place = true,
          .errors = in_anthropic_form},
    Route{.method = "POST",
          .path = "/v1/messages/count_tokens",
          .group = "Text",
          .summary = "How many tokens a conversation becomes (Anthropic)",
          .handle = count_message_tokens,
          .pace = Pace::kSoon,
          .fields = count_tokens_fields,
          .errors = in_anthropic_form},
    Route{.method = "GET",
          .path = "/anthropic/v1/models",
          .group = "Models",
          .summary = "The model that is served (Anthropic)",
          .handle = list_anthropic_models,
          .errors = in_anthropic_form},
    Route{.method = "POST",
          .path = "/generate",
          .group = "Generating",
          .summary = "Goes on with a text or token ids",
          .handle = generate,
          .pace = Pace::kSoon,
          .fields = generate_fields,
          .new_work = true,
          .takes_place = true},
    Route{.method = "POST",
          .path = "/v1/chat/interactive",
          .group = "Generating",
          .summary = "A conversation that the server keeps (LMDeploy)",
          .handle = interactive,
          .pace = Pace::kSoon,
          .fields = interactive_fields,
          .new_work = true,
          .failures = {{{"409", "The session's last message is still being answered"}}}},
    Route{.method = "POST",
          .path = "/v1/embeddings",
          .group = "Prompts",
          .summary = "Embeddings: the decoder's last hidden states, pooled and scaled to length 1",
          .handle = embeddings,
          .pace = Pace::kWaits,
          .fields = embedding_fields,
          .new_work = true,
          .takes_place = true},
    Route{.method = "POST",
          .path = "/pooling",
          .group = "Prompts",
          .summary = "The decoder's last hidden states, pooled (LMDeploy)",
          .handle = pooling,
          .pace = Pace::kWaits,
          .fields = pooling_fields,
          .new_work = true,
          .takes_place = true},
    Route{.method = "POST",
          .path = "/get_ppl",
          .group = "Prompts",
          .summary = "The mean cross-entropy of a text in nats; its exponential is the perplexity",
          .handle = get_ppl,
          .pace = Pace::kWaits,
          .fields = ppl_fields,
          .new_work = true,
          .takes_place = true},
    Route{.method = "POST",
          .path = "/v1/encode",
          .group = "Text",
          .summary = "Text to token ids (LMDeploy)",
          .handle = encode,
          .pace = Pace::kSoon,
          .fields = encode_fields},
    Route{.method = "POST",
          .path = "/tokenize",
          .group = "Text",
          .summary = "Text or a conversation to token ids",
          .handle = tokenize,
          .pace = Pace::kSoon,
          .fields = tokenize_fields},
    Route{.method = "POST",
          .path = "/detokenize",
          .group = "Text",
          .summary = "Token ids to text",
          .handle = detokenize,
          .pace = Pace::kSoon,
          .fields = detokenize_fields},
    Route{.method = "GET",
          .path = "/health",
          .group = "Running",
          .summary = "Whether the server works",
          .handle = show_health,
          .access = Access::kOpen,
          .failures = {{{"503", "It does not get on, or is shutting down", "Health"}}}},
    Route{.method = "GET",
          .path = "/health/live",
          .group = "Running",
          .summary = "503 when the engine is stuck: start the server anew",
          .handle = show_live,
          .access = Access::kOpen,
          .failures = {{{"503", "It does not get on", "Health"}}}},
    Route{.method = "GET",
          .path = "/health/ready",
          .group = "Running",
          .summary = "503 when new requests belong elsewhere",
          .handle = show_ready,
          .access = Access::kOpen,
          .failures = {{{"503", "It does not get on, is shutting down, or asleep", "Health"}}}},
    Route{.method = "GET",
          .path = "/version",
          .group = "Running",
          .summary = "The program's version",
          .handle = show_version,
          .access = Access::kOpen},
    Route{.method = "GET",
          .path = "/metrics",
          .group = "Running",
          .summary = "Figures for Prometheus",
          .handle = show_metrics,
          .access = Access::kMetrics,
          .content_type = "text/plain"},
    Route{.method = "POST",
          .path = "/abort_request",
          .group = "Running",
          .summary = "Stops a session's answer, or all answers (--enable-abort-handling and a key)",
          .handle = abort_request,
          .pace = Pace::kSoon,
          .fields = abort_fields,
          .gate = abort_gate},
    Route{.method = "POST",
          .path = "/sleep",
          .group = "Running",
          .summary = "Gives weights and KV cache back; answers under way end (--enable-sleep and a key)",
          .handle = fall_asleep,
          .pace = Pace::kWaits,
          .gate = sleep_gate,
          .failures = {{{"400", "There is no such level"}}}},
    Route{.method = "POST",
          .path = "/wakeup",
          .group = "Running",
          .summary = "Loads the model again (--enable-sleep and a key)",
          .handle = wake_up,
          .pace = Pace::kWaits,
          .gate = sleep_gate,
          .failures = {{{"400", "The tags are not those of all there is"},
                        {"429", "Memory is short: try again later"},
                        {"500", "The model cannot be loaded again"}}}},
    Route{.method = "GET",
          .path = "/is_sleeping",
          .group = "Running",
          .summary = "Whether the server is asleep",
          .handle = show_sleeping},
    Route{.method = "GET",
          .path = "/terminate",
          .group = "Running",
          .summary = "Ends the server (--allow-terminate-by-client and a key)",
          .handle = terminate,
          .gate = terminate_gate},
    Route{.method = "GET",
          .path = "/openapi.json",
          .group = "About",
          .summary = "This API for programs (OpenAPI 3.1)",
          .handle = show_openapi,
          .access = Access::kDocs},
    Route{.method = "GET",
          .path = "/",
          .group = "About",
          .summary = "This API for people",
          .handle = show_docs,
          .access = Access::kDocs,
          .content_type = "text/html"},
    Route{.method = "GET",
          .path = "/chat",
          .group = "About",
          .summary = "A page to chat on; it asks for a key itself where one is needed",
          .handle = show_chat,
          .access = Access::kOpen,
          .content_type = "text/html"},
};

bool is_there(const Route& route, const ServiceOptions& options) {
  if (route.access == Access::kDocs) return options.docs;
  if (route.access == Access::kMetrics) return options.metrics;
  return true;
}

bool fits(const Route& route, std::string_view path) {
  const std::string_view pattern = route.path;
  if (!pattern.ends_with(kRest)) return pattern == path;
  const std::string_view stem = pattern.substr(0, pattern.size() - kRest.size());
  return path.starts_with(stem) && path.size() > stem.size() && path.find('/', stem.size()) == std::string_view::npos;
}

}  // namespace

std::span<const Route> routes() { return kRoutes; }

const Route* find_route(std::string_view method, std::string_view path, const ServiceOptions& options) {
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  for (const Route& route : kRoutes) {
    if (route.method == wanted && fits(route, path) && is_there(route, options)) return &route;
  }
  return nullptr;
}

std::string allowed_methods(std::string_view path, const ServiceOptions& options) {
  std::string methods;
  for (const Route& route : kRoutes) {
    if (!fits(route, path) || !is_there(route, options)) continue;
    methods += route.method == std::string_view("GET") ? "GET, HEAD, " : "POST, ";
  }
  if (!methods.empty()) methods += "OPTIONS";
  return methods;
}

}  // namespace lanner::server
