#pragma once
// A Service over an engine that follows a script, called without sockets.
//
//   TestService test(says("Hello"));
//   const HttpReply reply = test.post("/v1/chat/completions", R"({"messages": …})");

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "pipeline/pipeline_test_support.h"
#include "server/service.h"

namespace lanner::server {

/// Takes a late answer to its end: what a stream sends, or the whole reply.
inline HttpReply finish(HttpReply reply) {
  if (reply.late == nullptr) return reply;
  struct Bell {
    std::mutex mutex;
    std::condition_variable rung;
    bool ringing = false;
  };
  const auto bell = std::make_shared<Bell>();
  reply.late->start([bell] {
    const std::lock_guard lock(bell->mutex);
    bell->ringing = true;
    bell->rung.notify_all();
  });
  std::string bytes;
  while (true) {
    LateAnswer::Piece piece = reply.late->take();
    bytes += piece.bytes;
    if (piece.done) break;
    std::unique_lock lock(bell->mutex);
    if (!bell->rung.wait_for(lock, std::chrono::seconds(20), [&] { return bell->ringing; })) {
      ADD_FAILURE() << "the answer does not come to its end";
      break;
    }
    bell->ringing = false;
  }
  if (!reply.late->streams()) return reply.late->reply();
  reply.body = std::move(bytes);
  reply.late = nullptr;
  return reply;
}

class TestService {
 public:
  explicit TestService(ScriptedEngine::Author author, ServiceOptions options = {},
                       const ScriptedEngineOptions& engine_options = {})
      : TestService(make_test_pipeline(std::move(author), engine_options), std::move(options)) {}

  /// The reply before its end, or the refusal.
  HttpReply begin(HttpRequest request) {
    std::optional<HttpReply> refused = service.screen(request);
    return refused ? *std::move(refused) : service.handle(request);
  }
  HttpReply call(HttpRequest request) { return finish(begin(std::move(request))); }

  HttpReply post(const std::string& path, const std::string& body) { return call(post_request(path, body)); }
  HttpReply get(const std::string& path) { return call({.method = "GET", .path = path}); }
  /// The body of an answer of 200.
  Json post_json(const std::string& path, const std::string& body) {
    const HttpReply reply = post(path, body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return Json::parse(reply.body, nullptr, false);
  }
  /// The error of a refusal.
  Json refusal(const std::string& path, const std::string& body, int status = 400) {
    const HttpReply reply = post(path, body);
    EXPECT_EQ(reply.status, status) << reply.body;
    const Json json = Json::parse(reply.body, nullptr, false);
    EXPECT_EQ(json.value("object", ""), "error");
    EXPECT_EQ(json.value("message", "?"), json["error"].value("message", "!"));
    EXPECT_EQ(json.value("code", 0), status);
    return json["error"];
  }

  static HttpRequest post_request(const std::string& path, const std::string& body) {
    return {.method = "POST", .path = path, .headers = {{"content-type", "application/json"}}, .body = body};
  }

  ScriptedEngine& engine;
  Service service;

 private:
  TestService(TestPipeline test, ServiceOptions options)
      : engine(*test.engine), service(std::move(test.pipeline), std::move(options)) {}
};

}  // namespace lanner::server
