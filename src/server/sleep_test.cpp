// A server that gives its memory back and comes again.

#include <atomic>
#include <string>
#include <thread>

#include "server/server_test_support.h"
#include "server/sleeping_pipeline.h"

namespace lanner::server {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kHi = R"({"messages": [{"role": "user", "content": "Hi"}]})";

ServiceOptions sleepy_options(std::atomic<int>& opened, ScriptedEngine::Author author) {
  ServiceOptions options{.api_keys = {"key"}, .allow_sleep = true};
  options.reopen = [&opened, author = std::move(author)]() -> Result<std::unique_ptr<Pipeline>> {
    ++opened;
    return make_test_pipeline(author).pipeline;
  };
  return options;
}

HttpRequest with_key(HttpRequest request) {
  request.headers.emplace_back("authorization", "Bearer key");
  return request;
}
HttpReply post(TestService& test, const std::string& path, const std::string& query = "") {
  return test.call(with_key({.method = "POST", .path = path, .query = query}));
}
HttpReply chat(TestService& test) { return test.call(with_key(TestService::post_request(kChat, kHi))); }
bool sleeps(TestService& test) {
  const HttpReply reply = test.call(with_key({.method = "GET", .path = "/is_sleeping"}));
  return Json::parse(reply.body).at("is_sleeping");
}

TEST(Sleep, GivesTheModelBackAndComesAgain) {
  std::atomic<int> opened = 0;
  TestService test(says("Hello"), sleepy_options(opened, says("Again")));
  EXPECT_EQ(chat(test).status, 200);
  EXPECT_FALSE(sleeps(test));
  EXPECT_EQ(post(test, "/sleep", "level=2").status, 200);
  EXPECT_TRUE(sleeps(test));
  for (const char* path : {kChat, "/tokenize", "/v1/encode"}) {
    const bool talk = path == std::string(kChat);
    const std::string body = talk ? kHi : path == std::string("/tokenize") ? R"({"prompt": "x"})" : R"({"input": "x"})";
    const HttpReply refused = test.call(with_key(TestService::post_request(path, body)));
    EXPECT_EQ(refused.status, 503) << path;
    EXPECT_NE(refused.body.find("/wakeup"), std::string::npos) << refused.body;
  }
  EXPECT_EQ(test.get("/health").status, 200);
  EXPECT_NE(test.get("/health").body.find("sleeping"), std::string::npos);
  EXPECT_EQ(test.get("/health/ready").status, 503);
  EXPECT_EQ(test.get("/health/live").status, 200);
  EXPECT_EQ(post(test, "/sleep").status, 200);  // it does already
  EXPECT_EQ(opened, 0);
  EXPECT_EQ(post(test, "/wakeup", "tags=weights&tags=kv_cache").status, 200);
  EXPECT_EQ(opened, 1);
  EXPECT_FALSE(sleeps(test));
  EXPECT_NE(chat(test).body.find("Again"), std::string::npos);
  EXPECT_EQ(post(test, "/wakeup").status, 200);
  EXPECT_EQ(opened, 1);
}

TEST(Sleep, EndsWhatIsUnderWay) {
  std::atomic<int> opened = 0;
  TestService test(endless, sleepy_options(opened, says("Again")), {.session_len = 1'000'000});
  HttpReply waiting = test.begin(with_key(TestService::post_request(kChat, kHi)));
  std::thread reader([&] { waiting = finish(std::move(waiting)); });
  EXPECT_EQ(post(test, "/sleep").status, 200);
  reader.join();
  EXPECT_EQ(Json::parse(waiting.body)["choices"][0]["finish_reason"], "abort") << waiting.body;
  EXPECT_TRUE(test.service.wait_until_idle(steady_clock::now() + seconds(10)));
  EXPECT_EQ(post(test, "/wakeup").status, 200);
  EXPECT_EQ(chat(test).status, 200);
}

TEST(Sleep, WithManyRequestsAtOnce) {
  std::atomic<int> opened = 0;
  TestService test(says("Hello"), sleepy_options(opened, says("Hello")));
  std::atomic<bool> over = false;
  std::atomic<int> others = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      while (!over) {
        const int status = chat(test).status;
        if (status != 200 && status != 503) ++others;
      }
    });
  }
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(post(test, "/sleep").status, 200);
    EXPECT_EQ(post(test, "/wakeup").status, 200);
  }
  over = true;
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(others, 0);
  EXPECT_EQ(opened, 20);
  EXPECT_TRUE(test.service.wait_until_idle(steady_clock::now() + seconds(10)));
}

TEST(Sleep, IsGuarded) {
  std::atomic<int> opened = 0;
  ServiceOptions options = sleepy_options(opened, says("x"));
  options.allow_sleep = false;
  TestService without_flag(says("Hello"), options);
  EXPECT_EQ(post(without_flag, "/sleep").status, 403);
  EXPECT_EQ(post(without_flag, "/wakeup").status, 403);
  EXPECT_FALSE(sleeps(without_flag));
  TestService test(says("Hello"), sleepy_options(opened, says("x")));
  EXPECT_EQ(test.call({.method = "POST", .path = "/sleep"}).status, 401);
  EXPECT_EQ(post(test, "/sleep", "level=3").status, 400);
  EXPECT_EQ(post(test, "/wakeup", "tags=weights").status, 400);
  EXPECT_EQ(post(test, "/wakeup", "tags=other").status, 400);
  EXPECT_FALSE(sleeps(test));
}

TEST(Sleep, GoesOnWhereTheModelCannotBeOpened) {
  ServiceOptions options{.api_keys = {"key"}, .allow_sleep = true};
  options.reopen = []() -> Result<std::unique_ptr<Pipeline>> { return internal_error("no memory"); };
  TestService test(says("Hello"), options);
  EXPECT_EQ(post(test, "/sleep").status, 200);
  const HttpReply failed = post(test, "/wakeup");
  EXPECT_EQ(failed.status, 500);
  EXPECT_NE(failed.body.find("no memory"), std::string::npos);
  EXPECT_TRUE(sleeps(test));
}

TEST(SleepingPipeline, IdsOfAnEarlierTimeNameNothing) {
  SleepingPipeline pipeline(make_test_pipeline(endless).pipeline, [&]() -> Result<std::unique_ptr<Pipeline>> {
    return make_test_pipeline(endless).pipeline;
  });
  std::atomic<int> finals = 0;
  std::atomic<RequestId> last = 0;
  const auto count = [&](const Chunk& chunk) {
    last = chunk.request;
    if (chunk.final) ++finals;
  };
  const auto first = pipeline.submit({.prompt = "x"}, count);
  ASSERT_TRUE(first.ok());
  pipeline.sleep();
  EXPECT_EQ(finals, 1);
  ASSERT_TRUE(pipeline.wake().ok());
  GenerationRequest long_one{.prompt = "x"};
  long_one.config.max_new_tokens = 1'000'000;
  const auto second = pipeline.submit(long_one, count);
  ASSERT_TRUE(second.ok());
  EXPECT_NE(*second, *first);
  pipeline.cancel(*first);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(finals, 1);
  pipeline.cancel(*second);
  for (const auto until = steady_clock::now() + seconds(10); finals < 2 && steady_clock::now() < until;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(finals, 2);
  EXPECT_EQ(last, *second);
}

}  // namespace
}  // namespace lanner::server
