#pragma once
// A pipeline as an HTTP service: who may call what, what a body must hold, and how the service comes to its end.
//
//   Service service(std::move(pipeline), options);
//   LANNER_ASSIGN_OR_RETURN(auto server, HttpServer::start({.port = 23333}, service));
//   …
//   shut_down(service, *server, …);        // shut_down.h
//
// Threads: as HttpHandler; the other methods from any thread.

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "lanner/pipeline.h"
#include "server/context.h"
#include "server/http_server.h"
#include "server/refusal.h"
#include "server/routes.h"

namespace lanner::server {

class Service final : public HttpHandler {
 public:
  Service(std::unique_ptr<Pipeline> pipeline, ServiceOptions options);
  /// The server that calls this one must have been stopped.
  ~Service() override;
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  std::optional<HttpReply> screen(HttpRequest& head) override;
  std::optional<HttpReply> turn_away(const HttpRequest& request) override;
  Pace pace(const HttpRequest& request) const override;
  HttpReply handle(const HttpRequest& request) override;
  HttpReply refuse(int status, const std::string& message) override;
  HttpReply in_form_of(const HttpRequest& request, HttpReply refusal) override;
  Headers common_headers(const HttpRequest& request) const override;
  void finished(const HttpRequest& request, const HttpOutcome& outcome) override;

  /// From now on new work and /health/ready are answered with 503.
  void close() { limits_.close(); }
  bool wait_until_idle(std::chrono::steady_clock::time_point until) { return limits_.wait_until_empty(until); }
  /// Answers under way end with the reason "abort".
  void abort_all() { running_.abort_all(); }

  const ServiceOptions& options() const { return options_; }

 private:
  std::optional<HttpReply> refused(HttpRequest& head, const Route* route) const;
  HttpReply answered(const HttpRequest& request, const Route* route);
  /// The origin of a page that may read the answer, as it stands in the request; empty for none.
  std::string_view allowed_origin(const HttpRequest& request) const;
  HttpReply preflight(const HttpRequest& head) const;
  void monitor();

  const ServiceOptions options_;
  const std::vector<std::string> key_digests_;
  Limits limits_;
  RunningAnswers running_;
  Metrics metrics_;
  Sessions sessions_;
  Health health_;
  Context context_;
  const std::unique_ptr<Pipeline> pipeline_;  // goes before all of the above: its last events reach them

  std::mutex mutex_;
  std::condition_variable stopping_changed_;
  bool stopping_ = false;
  std::thread monitor_;
};

}  // namespace lanner::server
