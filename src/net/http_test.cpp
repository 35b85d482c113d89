// What of http_client.h, hub_json.h and retries.h needs no server; tests/net has the rest.

#include <gtest/gtest.h>

#include <chrono>
#include <string>

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
  const auto client = make_http_client({});
  // 192.0.2.0/24 is for documents: nothing answers, and a cancelled request does not even wait for that.
  const HttpRequest request{.url = "http://127.0.0.1:1/", .cancelled = &cancelled};
  const StatusCode code = fetch(*client, request, 1000).status().code();
  EXPECT_TRUE(code == StatusCode::kCancelled || code == StatusCode::kIo);
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
