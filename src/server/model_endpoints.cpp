// GET /v1/models, /version and /metrics: what is served here, and how it fares.

#include <string>

#include "lanner/version.h"
#include "server/endpoints.h"
#include "server/generation_request.h"

namespace lanner::server {
namespace {

Json model_card(const Context& context) {
  static const std::int64_t created = unix_seconds();
  const std::string& name = context.options.model_name;
  const Json permission{{"id", "modelperm-" + name},
                        {"object", "model_permission"},
                        {"created", created},
                        {"allow_create_engine", false},
                        {"allow_sampling", true},
                        {"allow_logprobs", true},
                        {"allow_search_indices", true},
                        {"allow_view", true},
                        {"allow_fine_tuning", false},
                        {"organization", "*"},
                        {"group", nullptr},
                        {"is_blocking", false}};
  return {{"id", name},
          {"object", "model"},
          {"created", created},
          {"owned_by", "lanner"},
          {"root", name},
          {"parent", nullptr},
          {"max_model_len", context.pipeline.engine().session_len()},
          {"permission", Json::array({permission})}};
}

}  // namespace

HttpReply json_reply(const Json& body) {
  HttpReply reply;
  reply.body = to_text(body);
  return reply;
}

HttpReply list_models(Context& context, const Call& /*call*/) {
  return json_reply({{"object", "list"}, {"data", Json::array({model_card(context)})}});
}

HttpReply show_model(Context& context, const Call& call) {
  const std::string name = call.request.path.substr(call.request.path.rfind('/') + 1);
  if (name != context.options.model_name) return to_reply(unknown_model(name.substr(0, 200)));
  return json_reply(model_card(context));
}

HttpReply show_version(Context& /*context*/, const Call& /*call*/) { return json_reply({{"version", version()}}); }

HttpReply show_metrics(Context& context, const Call& /*call*/) {
  HttpReply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  const Engine& engine = context.pipeline.engine();
  reply.body = context.metrics.text(
      {.engine = engine.stats(), .plan = engine.memory_plan(), .refused = context.limits.refused()});
  return reply;
}

}  // namespace lanner::server
