#pragma once
// What the endpoints work with.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lanner/pipeline.h"
#include "server/health.h"
#include "server/http.h"
#include "server/json.h"
#include "server/limits.h"
#include "server/metrics.h"
#include "server/running_answers.h"
#include "server/sessions.h"
#include "server/tool_syntax.h"

namespace lanner::server {

class SleepingPipeline;

struct ServiceOptions {
  std::string model_name;       // empty: the pipeline's
  std::string scheme = "http";  // by which clients reach it; only to be shown
  /// Any of them opens all but the health routes; empty: no key is asked for.
  std::vector<std::string> api_keys;
  /// CORS. Without origins no other site's pages may call; "*" lets all.
  std::vector<std::string> allow_origins;
  std::vector<std::string> allow_methods{"*"};
  std::vector<std::string> allow_headers{"*"};
  bool allow_credentials = false;
  /// Only requests whose Host names this machine are answered: for a server on loopback that asks for no key, which
  /// any web page could otherwise reach by a name of its own.
  bool check_host = false;
  std::int64_t max_places = 0;  // answers at once, waiting ones included; 0: no limit
  bool docs = true;
  bool metrics = true;
  std::string metrics_prefix = "lanner";
  const ToolSyntax* tools = nullptr;  // how the model writes calls; nullptr: requests with tools are refused
  bool thoughts = false;              // <think>…</think> in front of an answer is no part of it
  std::size_t max_sessions = 1'024;
  std::size_t max_session_bytes = 256ULL << 20;  // of the messages of all sessions together
  std::chrono::seconds session_idle_time{3'600};
  /// No step of the engine for so long, while there is work, counts as stuck.
  std::chrono::seconds stuck_after{60};
  /// GET /terminate and POST /abort_request: only with an API key.
  bool allow_terminate = false;
  bool allow_abort = false;
  /// POST /sleep and /wakeup: the same, and only with what opens the model anew.
  bool allow_sleep = false;
  std::function<Result<std::unique_ptr<Pipeline>>()> reopen;
  std::function<void()> on_terminate;  // from the server's thread
  /// A line for each exchange, for the access log; may be empty. Called from the server's thread.
  std::function<void(const std::string&)> log;
};

/// One running server's state beneath HTTP. `options.model_name` is never empty here.
struct Context {
  Pipeline& pipeline;
  const ServiceOptions& options;
  Limits& limits;
  RunningAnswers& running;
  Metrics& metrics;
  Sessions& sessions;
  const Health& health;
  SleepingPipeline* sleeper;  // the pipeline, where it may fall asleep; else null
};

/// A request whose body has been checked against its endpoint's fields.
struct Call {
  const HttpRequest& request;
  const Json& body;  // null where there is none
};

}  // namespace lanner::server
