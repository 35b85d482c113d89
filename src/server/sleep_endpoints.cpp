// POST /sleep and /wakeup, GET /is_sleeping.

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "server/endpoints.h"
#include "server/sleeping_pipeline.h"

namespace lanner::server {
namespace {

/// The values of one name in "level=1&tags=weights&tags=kv_cache".
std::vector<std::string_view> query_values(std::string_view query, std::string_view name) {
  std::vector<std::string_view> values;
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const std::size_t equals = pair.find('=');
    if (pair.substr(0, equals) == name)
      values.push_back(equals == std::string_view::npos ? "" : pair.substr(equals + 1));
  }
  return values;
}

}  // namespace

bool is_asleep(const Context& context) { return context.sleeper != nullptr && context.sleeper->asleep(); }

std::optional<Refusal> sleep_gate(const ServiceOptions& options) {
  if (options.allow_sleep && !options.api_keys.empty() && options.reopen) return std::nullopt;
  return not_allowed("--enable-sleep");
}

HttpReply fall_asleep(Context& context, const Call& call) {
  for (const std::string_view level : query_values(call.request.query, "level")) {
    if (level != "1" && level != "2") return to_reply(bad_field("level", "must be 1 or 2"));
  }
  context.sleeper->sleep();
  return json_reply({{"status", "ok"}});
}

HttpReply wake_up(Context& context, const Call& call) {
  const auto tags = query_values(call.request.query, "tags");
  bool weights = tags.empty();
  bool cache = tags.empty();
  for (const std::string_view tag : tags) {
    if (tag != "weights" && tag != "kv_cache") return to_reply(bad_field("tags", "must be weights and kv_cache"));
    weights = weights || tag == "weights";
    cache = cache || tag == "kv_cache";
  }
  if (!weights || !cache) {
    return to_reply(not_available("tags", "weights and KV cache come back together: give both, or none"));
  }
  const Status status = context.sleeper->wake();
  if (!status.ok()) return to_reply(refusal_of(status));
  return json_reply({{"status", "ok"}});
}

HttpReply show_sleeping(Context& context, const Call& /*call*/) {
  return json_reply({{"is_sleeping", is_asleep(context)}});
}

}  // namespace lanner::server
