#include "server/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/gate.h"
#include "server/generation_request.h"
#include "server/routes.h"
#include "server/sleeping_pipeline.h"

namespace lanner::server {
namespace {

constexpr std::chrono::milliseconds kMonitorPause(1'000);
constexpr std::chrono::milliseconds kLastWords(10'000);  // for the final events of what was aborted

ServiceOptions complete(ServiceOptions options, const Pipeline& pipeline) {
  if (options.model_name.empty()) options.model_name = pipeline.model_name();
  return options;
}

bool is_header_list(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= ' ' && c < 127; });
}

bool contains(const std::vector<std::string>& list, std::string_view value) {
  return std::ranges::find(list, value) != list.end();
}

/// Wraps it where the options let it sleep.
Pipeline& able_to_sleep(std::unique_ptr<Pipeline>& pipeline, const ServiceOptions& options) {
  if (options.allow_sleep && options.reopen) {
    pipeline = std::make_unique<SleepingPipeline>(std::move(pipeline), options.reopen);
  }
  return *pipeline;
}

std::string joined(const std::vector<std::string>& list) {
  std::string text;
  for (const std::string& one : list) text += (text.empty() ? "" : ", ") + one;
  return text;
}

/// "application/json; charset=utf-8" too.
bool is_json(std::string_view content_type) {
  constexpr std::string_view kJson = "application/json";
  if (content_type.size() < kJson.size()) return false;
  const bool same_word = std::ranges::equal(content_type.substr(0, kJson.size()), kJson, [](char a, char b) {
    return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b;
  });
  const std::string_view rest = content_type.substr(kJson.size());
  return same_word && (rest.empty() || rest.front() == ';' || rest.front() == ' ');
}

/// Whether a body follows; the framing has been checked.
bool has_body(const HttpRequest& head) {
  return !head.header("transfer-encoding").empty() ||
         head.header("content-length").find_first_not_of('0') != std::string_view::npos;
}

/// As the route's protocol has it.
HttpReply in_form(const Route* route, HttpReply reply) {
  return route != nullptr && route->errors != nullptr ? route->errors(std::move(reply)) : std::move(reply);
}

}  // namespace

Service::Service(std::unique_ptr<Pipeline> pipeline, ServiceOptions options)
    : options_(complete(std::move(options), *pipeline)),
      key_digests_(key_digests(options_.api_keys)),
      limits_(options_.max_places),
      metrics_(options_.metrics_prefix, options_.model_name),
      sessions_(options_.max_sessions, options_.max_session_bytes, options_.session_idle_time),
      health_(options_.stuck_after),
      context_{.pipeline = able_to_sleep(pipeline, options_),
               .options = options_,
               .limits = limits_,
               .running = running_,
               .metrics = metrics_,
               .sessions = sessions_,
               .health = health_,
               .sleeper = dynamic_cast<SleepingPipeline*>(pipeline.get())},
      pipeline_(std::move(pipeline)),
      monitor_([this] { monitor(); }) {}

Service::~Service() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopping_changed_.notify_all();
  monitor_.join();
  close();
  abort_all();
  wait_until_idle(std::chrono::steady_clock::now() + kLastWords);
}

void Service::monitor() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    health_.observe(pipeline_->engine().stats(), Health::Clock::now());
    stopping_changed_.wait_for(lock, kMonitorPause, [&] { return stopping_; });
  }
}

std::string_view Service::allowed_origin(const HttpRequest& request) const {
  const std::string_view origin = request.header("origin");
  if (origin.empty() || options_.allow_origins.empty() || !is_header_list(origin)) return {};
  return contains(options_.allow_origins, "*") || contains(options_.allow_origins, origin) ? origin
                                                                                           : std::string_view();
}

Headers Service::common_headers(const HttpRequest& request) const {
  Headers headers;
  if (!request.id.empty()) headers.emplace_back("X-Request-Id", request.id);
  headers.emplace_back("X-Content-Type-Options", "nosniff");
  const std::string_view origin = allowed_origin(request);
  if (origin.empty()) return headers;
  const bool all = contains(options_.allow_origins, "*") && !options_.allow_credentials;
  headers.emplace_back("Access-Control-Allow-Origin", all ? "*" : std::string(origin));
  headers.emplace_back("Vary", "Origin");
  if (options_.allow_credentials) headers.emplace_back("Access-Control-Allow-Credentials", "true");
  return headers;
}

HttpReply Service::preflight(const HttpRequest& head) const {
  const std::string methods = allowed_methods(head.path, options_);
  HttpReply reply;
  if (methods.empty() && head.path != "*") {
    reply = to_reply(plain_refusal(404, fmt::format("there is no {}", head.path.substr(0, 200)), "unknown_url"));
    return reply;
  }
  reply.status = 204;
  reply.headers.emplace_back("Allow", methods);
  if (allowed_origin(head).empty()) return reply;
  const bool all_methods = contains(options_.allow_methods, "*");
  reply.headers.emplace_back("Access-Control-Allow-Methods", all_methods ? methods : joined(options_.allow_methods));
  const std::string_view asked = head.header("access-control-request-headers");
  const bool all_headers = contains(options_.allow_headers, "*") && is_header_list(asked);
  reply.headers.emplace_back("Access-Control-Allow-Headers",
                             all_headers ? std::string(asked) : joined(options_.allow_headers));
  reply.headers.emplace_back("Access-Control-Max-Age", "600");
  return reply;
}

std::optional<HttpReply> Service::screen(HttpRequest& head) {
  const Route* route = find_route(head.method, head.path, options_);
  std::optional<HttpReply> refusal = refused(head, route);
  if (refusal) return in_form(route, *std::move(refusal));
  return refusal;
}

std::optional<HttpReply> Service::refused(HttpRequest& head, const Route* route) const {
  const std::string_view given_id = head.header("x-request-id");
  head.id = is_request_id(given_id) ? std::string(given_id) : random_id("req-");
  if (options_.check_host && !names_this_machine(head)) {
    return to_reply(plain_refusal(403, "the Host of the request is not this machine", "unknown_host"));
  }
  if (head.method == "OPTIONS") return preflight(head);
  const bool open = route != nullptr && route->access == Access::kOpen;
  if (!open && !key_digests_.empty() && !has_key(head, key_digests_)) {
    Refusal refusal = plain_refusal(401, "Unauthorized.", "invalid_api_key");
    refusal.headers = {{"WWW-Authenticate", "Bearer"}};
    return to_reply(refusal);
  }
  if (route == nullptr) {
    const std::string methods = allowed_methods(head.path, options_);
    if (methods.empty()) {
      return to_reply(plain_refusal(404, fmt::format("there is no {}", head.path.substr(0, 200)), "unknown_url"));
    }
    Refusal refusal = plain_refusal(405, fmt::format("{} knows only {}", head.path, methods), "method_not_allowed");
    refusal.headers = {{"Allow", methods}};
    return to_reply(refusal);
  }
  if (route->new_work && limits_.closed()) return to_reply(shutting_down());
  if (route->fields == nullptr && has_body(head)) {
    return to_reply(
        plain_refusal(413, fmt::format("{} {} takes no body", head.method, route->path), "unexpected_body"));
  }
  if (route->gate != nullptr) {
    if (const auto refusal = route->gate(options_)) return to_reply(*refusal);
  }
  if (route->fields != nullptr && !is_json(head.header("content-type"))) {
    return to_reply(
        plain_refusal(400, "Unsupported Media Type: Only 'application/json' is allowed", "unsupported_media_type"));
  }
  return std::nullopt;
}

std::optional<HttpReply> Service::turn_away(const HttpRequest& request) {
  const Route* route = find_route(request.method, request.path, options_);
  if (route == nullptr || !route->takes_place || !limits_.refuse_if_full()) return std::nullopt;
  return in_form(route, to_reply(turned_away(limits_.closed())));
}

Pace Service::pace(const HttpRequest& request) const {
  const Route* route = find_route(request.method, request.path, options_);
  return route == nullptr ? Pace::kAtOnce : route->pace;
}

HttpReply Service::handle(const HttpRequest& request) {
  const Route* route = find_route(request.method, request.path, options_);
  if (route == nullptr) return to_reply(plain_refusal(404, "there is no such route", "unknown_url"));
  return in_form(route, answered(request, route));
}

HttpReply Service::answered(const HttpRequest& request, const Route* route) {
  if (route->fields == nullptr) return route->handle(context_, {.request = request, .body = Json()});
  const Result<Json> body = parse_json(request.body);
  if (!body.ok()) return to_reply(refusal_of(body.status()));
  if (const auto refusal = check_fields(*body, route->fields())) return to_reply(*refusal);
  return route->handle(context_, {.request = request, .body = *body});
}

HttpReply Service::refuse(int status, const std::string& message) {
  Refusal refusal = plain_refusal(status, message, status >= 500 ? "internal_error" : "bad_request");
  if (status == 503) refusal.headers = {{"Retry-After", "1"}};
  return to_reply(refusal);
}

HttpReply Service::in_form_of(const HttpRequest& request, HttpReply refusal) {
  return in_form(find_route(request.method, request.path, options_), std::move(refusal));
}

void Service::finished(const HttpRequest& request, const HttpOutcome& outcome) {
  metrics_.http_answered(outcome.status);
  if (options_.log) options_.log(access_line(request, outcome));
}

}  // namespace lanner::server
