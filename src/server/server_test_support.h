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

/// Takes an answer's pieces as a connection does: again wherever there were bytes, else after the next wake().
class Reader {
 public:
  explicit Reader(LateAnswer& answer) : answer_(answer) {
    answer_.start([bell = bell_] {
      const std::lock_guard lock(bell->mutex);
      bell->ringing = true;
      bell->rung.notify_all();
    });
  }

  /// The next piece that has bytes or is the last. One that does not come fails the test, and counts as the last.
  LateAnswer::Piece next() {
    while (true) {
      LateAnswer::Piece piece = answer_.take();
      if (piece.done || !piece.bytes.empty()) return piece;
      std::unique_lock lock(bell_->mutex);
      if (!bell_->rung.wait_for(lock, std::chrono::seconds(20), [&] { return bell_->ringing; })) {
        ADD_FAILURE() << "the answer does not come to its end";
        return {.done = true};
      }
      bell_->ringing = false;
    }
  }

 private:
  struct Bell {
    std::mutex mutex;
    std::condition_variable rung;
    bool ringing = false;
  };

  LateAnswer& answer_;
  const std::shared_ptr<Bell> bell_ = std::make_shared<Bell>();
};

/// Takes a late answer to its end: what a stream sends, or the whole reply.
inline HttpReply finish(HttpReply reply) {
  if (reply.late == nullptr) return reply;
  Reader reader(*reply.late);
  std::string bytes;
  for (bool done = false; !done;) {
    const LateAnswer::Piece piece = reader.next();
    bytes += piece.bytes;
    done = piece.done;
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
