// What of http_client.h, hub_json.h and retries.h needs no hub; tests/net has the rest.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "net/http_client.h"
#include "net/hub_json.h"
#include "net/retries.h"

namespace lanner::net {
namespace {

using std::chrono::seconds;

TEST(HttpHead, FindsHeaders) {
  const HttpHead head{
      .status = 200, .headers = {{"content-length", "12"}, {"etag", "\"a\""}, {"etag", "\"b\""}}, .url = ""};
  EXPECT_EQ(head.header("etag"), "\"a\"");
  EXPECT_EQ(head.header("none"), "");
  EXPECT_EQ(head.content_length(), 12);
}

TEST(HttpHead, BelievesOnlyNumbers) {
  for (const char* text : {"", "-1", "12x", "0x10", " 1", "99999999999999999999", "1e3"}) {
    const HttpHead head{.status = 200, .headers = {{"content-length", text}}, .url = ""};
    EXPECT_FALSE(head.content_length().has_value()) << text;
  }
}

TEST(RetryAfter, IsSecondsOrADate) {
  const auto now = std::chrono::system_clock::from_time_t(784111777);  // Sun, 06 Nov 1994 08:49:37 GMT, of RFC 9110
  EXPECT_EQ(retry_after("120", now), seconds(120));
  EXPECT_EQ(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now), seconds(10));
  EXPECT_EQ(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), seconds(0));
  EXPECT_EQ(retry_after("Fri, 31 Dec 9999 23:59:59 GMT", now), seconds(253402300799 - 784111777));
  for (const char* text : {"", "-5", "soon", "1.5", "Sun, 99 Nov 1994"}) EXPECT_FALSE(retry_after(text, now)) << text;
}

TEST(HttpClient, RefusesBadRequestsBeforeConnecting) {
  const auto client = make_http_client({});
  for (const HttpRequest& request :
       {HttpRequest{.url = "ftp://localhost/"},
        HttpRequest{.url = "http://localhost:1/", .headers = {{"x", "a\r\nb: c"}}},
        HttpRequest{.url = "http://localhost:1/", .headers = {{"x y", "a"}}},
        HttpRequest{.url = "http://localhost:1/", .authorization = "Bearer a\nb"},
        HttpRequest{.url = "http://localhost:1/", .headers = {{"x", std::string(100'000, 'a')}}},
        HttpRequest{.method = "GET /", .url = "http://localhost:1/"}}) {
    EXPECT_EQ(fetch(*client, request, 1000).status().code(), StatusCode::kInvalidArgument) << request.url;
  }
}

TEST(HttpClient, StopsWhenCancelled) {
  const std::atomic<bool> cancelled = true;
  const HttpRequest request{.url = "http://127.0.0.1:1/", .cancelled = &cancelled};
  EXPECT_EQ(fetch(*make_http_client({}), request, 1000).status().code(), StatusCode::kCancelled);
}

TEST(HttpClient, StopsWithoutTimeLeft) {
  const auto client = make_http_client({.connect_timeout = std::chrono::milliseconds(0)});
  const Status status = fetch(*client, {.url = "http://127.0.0.1:1/"}, 1000).status();
  EXPECT_EQ(status.code(), StatusCode::kIo);
  EXPECT_EQ(status.message(), "127.0.0.1:1: no answer in time");
}

/// Answers one request with a body that never ends, as fast as it is taken.
class EndlessServer {
 public:
  EndlessServer() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const name = reinterpret_cast<sockaddr*>(&address);
    EXPECT_TRUE(::bind(listener_, name, size) == 0 && ::listen(listener_, 1) == 0 &&
                ::getsockname(listener_, name, &size) == 0);
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/";
    thread_ = std::thread([this] { serve(); });
  }
  EndlessServer(const EndlessServer&) = delete;
  EndlessServer& operator=(const EndlessServer&) = delete;
  ~EndlessServer() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }

  const std::string& url() const { return url_; }

 private:
  void serve() const {
    const int peer = ::accept(listener_, nullptr, nullptr);
    if (peer < 0) return;
    const std::string body(1 << 16, 'x');
    std::string_view next = "HTTP/1.1 200 OK\r\n\r\n";
    while (::send(peer, next.data(), next.size(), MSG_NOSIGNAL) > 0) next = body;
    ::close(peer);
  }

  const int listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::string url_;
  std::thread thread_;
};

/// Fails with kInternal where the exchange should have been over long ago.
class ImpatientSink final : public BodySink {
 public:
  explicit ImpatientSink(std::atomic<bool>* cancelled = nullptr) : cancelled_(cancelled) {}

  Status begin(const HttpHead& /*head*/) override { return {}; }
  Status write(std::string_view /*bytes*/) override {
    if (cancelled_ != nullptr) *cancelled_ = true;
    return std::chrono::steady_clock::now() < end_ ? Status() : internal_error("nothing ended it");
  }

 private:
  std::atomic<bool>* cancelled_;
  const std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::now() + seconds(20);
};

TEST(HttpClient, CanBeStoppedWhileTheBodyComesFast) {
  const EndlessServer server;
  std::atomic<bool> cancelled = false;
  ImpatientSink sink(&cancelled);
  const HttpRequest request{.url = server.url(), .cancelled = &cancelled};
  EXPECT_EQ(make_http_client({})->exchange(request, sink).status().code(), StatusCode::kCancelled);
}

TEST(HttpClient, HasATotalTimeoutForBodiesThatComeFast) {
  const EndlessServer server;
  ImpatientSink sink;
  const HttpRequest request{.url = server.url(), .total_timeout = std::chrono::milliseconds(200)};
  EXPECT_EQ(make_http_client({})->exchange(request, sink).status().code(), StatusCode::kIo);
}

TEST(HubJson, IsBounded) {
  EXPECT_TRUE(parse_hub_json(R"({"a": [1, "x\"]}", null]})", "hub").ok());
  EXPECT_EQ(parse_hub_json("{", "hub").status().message(), "hub: is not JSON");
  EXPECT_FALSE(parse_hub_json("", "hub").ok());
  const std::string deep = std::string(kMaxJsonDepth + 1, '[') + std::string(kMaxJsonDepth + 1, ']');
  EXPECT_EQ(parse_hub_json(deep, "hub").status().message(), "hub: JSON deeper than 32 levels");
  EXPECT_TRUE(parse_hub_json(deep.substr(1, deep.size() - 2), "hub").ok());
  EXPECT_TRUE(
      parse_hub_json("\"" + std::string(100, '[') + "\\\"[\"", "hub").ok());  // within a string they do not count
}

TEST(HubJson, ReadsOnlyTheRightKind) {
  const Json json =
      Json::parse(R"({"text": "a", "number": 5, "big": 18446744073709551615, "real": 1.5, "null": null})");
  EXPECT_EQ(json_text(json, "text"), "a");
  EXPECT_FALSE(json_text(json, "number"));
  EXPECT_FALSE(json_text(json, "none"));
  EXPECT_EQ(json_integer(json, "number"), 5);
  for (const char* key : {"text", "big", "real", "null", "none"}) EXPECT_FALSE(json_integer(json, key)) << key;
  EXPECT_FALSE(json_text(Json::array(), "text"));
  EXPECT_FALSE(json_integer(Json(3), "number"));
}

TEST(Retries, AreCountedAndReset) {
  std::string told;
  Retries retries(
      {.retries = 2, .first_delay = std::chrono::milliseconds(1), .note = [&](std::string_view text) { told = text; }});
  const Status broken = io_error("it broke");
  EXPECT_TRUE(retries.wait_or_fail(broken).ok());
  EXPECT_EQ(told, "it broke; trying again in 0.0 s");
  EXPECT_TRUE(retries.wait_or_fail(broken).ok());
  EXPECT_EQ(retries.wait_or_fail(broken).message(), "it broke");
  retries.reset();
  EXPECT_TRUE(retries.wait_or_fail(broken).ok());
}

TEST(Retries, AreOnlyForWhatMayPass) {
  Retries retries({.first_delay = std::chrono::milliseconds(1)});
  for (const StatusCode code :
       {StatusCode::kCorrupt, StatusCode::kResourceExhausted, StatusCode::kNotFound, StatusCode::kCancelled}) {
    EXPECT_EQ(retries.wait_or_fail(Status(code, "x")).code(), code);
  }
  const Status verdict = retries.wait_or_fail(io_error("busy"), seconds(3600));
  EXPECT_EQ(verdict.message(), "busy; the server asks to come back in 3600 s");
  for (const int status : {408, 429, 500, 502, 503, 504}) EXPECT_TRUE(is_passing_failure(status)) << status;
  for (const int status : {200, 301, 400, 401, 403, 404, 416, 501}) EXPECT_FALSE(is_passing_failure(status)) << status;
}

TEST(Retries, StopWhenCancelled) {
  const std::atomic<bool> cancelled = true;
  Retries retries({.first_delay = std::chrono::milliseconds(60'000), .cancelled = &cancelled});
  EXPECT_EQ(retries.wait_or_fail(io_error("x")).code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace lanner::net
