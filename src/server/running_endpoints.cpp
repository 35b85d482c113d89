// /health, /abort_request and /terminate: the server itself.

#include "server/endpoints.h"
#include "server/generation_request.h"

namespace lanner::server {
namespace {

HttpReply health_reply(const char* status, const char* message, bool good) {
  HttpReply reply = json_reply({{"status", status}, {"message", message}});
  if (good) return reply;
  reply.status = 503;
  reply.headers = {{"Retry-After", "5"}};
  return reply;
}

}  // namespace

HttpReply show_health(Context& context, const Call& /*call*/) {
  if (context.health.stuck()) return health_reply("unhealthy", "the engine does not get on", false);
  if (context.limits.closed()) return health_reply("draining", "the server is shutting down", false);
  if (is_asleep(context)) return health_reply("sleeping", "POST /wakeup wakes it", true);
  return health_reply("healthy", "", true);
}

HttpReply show_ready(Context& context, const Call& call) {
  if (is_asleep(context)) return health_reply("sleeping", "POST /wakeup wakes it", false);
  return show_health(context, call);
}

HttpReply show_live(Context& context, const Call& /*call*/) {
  if (context.health.stuck()) return health_reply("unhealthy", "the engine does not get on", false);
  return health_reply("healthy", "", true);
}

std::optional<Refusal> abort_gate(const ServiceOptions& options) {
  if (options.allow_abort && !options.api_keys.empty()) return std::nullopt;
  return not_allowed("--enable-abort-handling");
}

HttpReply abort_request(Context& context, const Call& call) {
  if (get_or(call.body, "abort_all", false)) {
    context.running.abort_all();
    return json_reply({{"status", "ok"}});
  }
  const auto session = get_or<std::int64_t>(call.body, "session_id", -1);
  const auto requests =
      session < 0 ? std::vector<RequestId>() : context.sessions.requests_of(static_cast<std::uint64_t>(session));
  if (requests.empty()) return to_reply(bad_field("session_id", "no answer of this session is being made"));
  for (const RequestId id : requests) context.pipeline.cancel(id);
  return json_reply({{"status", "ok"}});
}

std::optional<Refusal> terminate_gate(const ServiceOptions& options) {
  if (options.allow_terminate && !options.api_keys.empty() && options.on_terminate) return std::nullopt;
  return not_allowed("--allow-terminate-by-client");
}

HttpReply terminate(Context& context, const Call& /*call*/) {
  context.options.on_terminate();
  return json_reply({{"status", "ok"}});
}

}  // namespace lanner::server
