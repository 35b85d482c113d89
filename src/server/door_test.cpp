// Who is let in, how many at once, what the server says of itself; sessions.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>

#include "server/routes.h"
#include "server/server_test_support.h"

namespace lanner::server {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kHi = R"({"messages": [{"role": "user", "content": "Hi"}]})";

std::string header(const Headers& headers, std::string_view name) {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return "";
}

TEST(Routes, UnknownOnesAndMethods) {
  TestService test(says("x"));
  EXPECT_EQ(test.get("/nothing").status, 404);
  EXPECT_EQ(test.get("/v1/models/").status, 404);
  for (const char* path : {"//v1/models", "/V1/models", "/v1/models/../models", "/v1/%6dodels", ""}) {
    EXPECT_EQ(test.get(path).status, 404) << path;
  }
  const HttpReply wrong = test.call({.method = "GET", .path = kChat});
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(header(wrong.headers, "Allow"), "POST, OPTIONS");
  EXPECT_EQ(test.call({.method = "BREW", .path = "/v1/models"}).status, 405);
  EXPECT_EQ(test.call({.method = "HEAD", .path = "/v1/models"}).status, 200);
  EXPECT_EQ(test.call({.method = "OPTIONS", .path = kChat}).status, 204);
  EXPECT_EQ(test.call({.method = "OPTIONS", .path = "/nothing"}).status, 404);
}

TEST(Routes, OnlyJsonIsTaken) {
  TestService test(says("x"));
  HttpRequest request = TestService::post_request(kChat, kHi);
  for (const char* type : {"text/plain", "application/jsonx", ""}) {
    request.headers = {{"content-type", type}};
    const HttpReply reply = test.call(request);
    EXPECT_EQ(reply.status, 400);
    EXPECT_NE(reply.body.find("Only 'application/json' is allowed"), std::string::npos);
  }
  request.headers = {{"content-type", "Application/JSON; charset=utf-8"}};
  EXPECT_EQ(test.call(request).status, 200);
  EXPECT_EQ(test.post(kChat, "{").status, 400);
  EXPECT_EQ(test.post(kChat, "").status, 400);
}

TEST(Routes, WithoutFieldsTakeNoBody) {
  TestService test(says("x"));
  for (const Route& route : routes()) {
    if (route.fields != nullptr) continue;
    for (const auto& field : {std::pair("content-length", "33554432"), std::pair("transfer-encoding", "chunked")}) {
      HttpRequest head{.method = route.method, .path = route.path, .headers = {field}};
      const auto refused = test.service.screen(head);
      EXPECT_EQ(refused ? refused->status : 0, 413) << route.path << field.first;
    }
    HttpRequest head{.method = route.method, .path = route.path, .headers = {{"content-length", "0"}}};
    EXPECT_EQ(test.service.screen(head).has_value(), route.gate != nullptr) << route.path;
  }
}

TEST(Keys, OpenEveryRouteButHealth) {
  ServiceOptions options{
      .api_keys = {"first", "second"}, .allow_terminate = true, .allow_abort = true, .allow_sleep = true};
  options.on_terminate = [] {};
  options.reopen = []() -> Result<std::unique_ptr<Pipeline>> { return internal_error("not here"); };
  TestService test(says("x"), options);
  for (const Route& route : routes()) {
    const std::string path = std::string(route.path) == "/v1/models/{model}" ? "/v1/models/test" : route.path;
    HttpRequest request{.method = route.method, .path = path};
    const bool open = route.access == Access::kOpen;
    EXPECT_EQ(test.service.screen(request).has_value(), !open) << path;
    for (const char* bad : {"Bearer third", "Bearer firs", "Bearer firstx", "Basic first", "Bearer ", "first"}) {
      request.headers = {{"authorization", bad}, {"content-type", "application/json"}};
      const auto reply = test.service.screen(request);
      EXPECT_EQ(reply ? reply->status : 0, open ? 0 : 401) << path << bad;
    }
    for (const char* good : {"Bearer first", "Bearer second"}) {
      request.headers = {{"authorization", good}, {"content-type", "application/json"}};
      EXPECT_FALSE(test.service.screen(request).has_value()) << path;
    }
    request.headers = {{"x-api-key", "second"}, {"content-type", "application/json"}};
    EXPECT_FALSE(test.service.screen(request).has_value()) << path;
  }
  EXPECT_EQ(test.get("/no/such/route").status, 401);  // not even what is there
  EXPECT_EQ(test.call({.method = "OPTIONS", .path = kChat}).status, 204);
}

TEST(Hosts, OnLoopbackMustBeThisMachine) {
  TestService test(says("x"), {.check_host = true});
  for (const char* host : {"localhost", "localhost:23333", "127.0.0.1:1", "[::1]:23333", "127.1.2.3"}) {
    EXPECT_EQ(test.call({.method = "GET", .path = "/health", .headers = {{"host", host}}}).status, 200) << host;
  }
  for (const char* host : {"evil.example", "localhost.evil.example", "", "[", "192.168.0.1"}) {
    EXPECT_EQ(test.call({.method = "GET", .path = "/health", .headers = {{"host", host}}}).status, 403) << host;
  }
}

TEST(Cors, IsOffUnlessAllowed) {
  const HttpRequest request{
      .method = "OPTIONS",
      .path = kChat,
      .headers = {{"origin", "https://page.example"}, {"access-control-request-headers", "authorization"}}};
  TestService closed(says("x"));
  EXPECT_EQ(header(closed.service.common_headers(request), "Access-Control-Allow-Origin"), "");
  EXPECT_EQ(header(closed.call(request).headers, "Access-Control-Allow-Methods"), "");
  TestService all(says("x"), {.allow_origins = {"*"}});
  EXPECT_EQ(header(all.service.common_headers(request), "Access-Control-Allow-Origin"), "*");
  EXPECT_EQ(header(all.call(request).headers, "Access-Control-Allow-Methods"), "POST, OPTIONS");
  EXPECT_EQ(header(all.call(request).headers, "Access-Control-Allow-Headers"), "authorization");
  TestService one(says("x"), {.allow_origins = {"https://page.example"}, .allow_credentials = true});
  EXPECT_EQ(header(one.service.common_headers(request), "Access-Control-Allow-Origin"), "https://page.example");
  EXPECT_EQ(header(one.service.common_headers(request), "Access-Control-Allow-Credentials"), "true");
  TestService other(says("x"), {.allow_origins = {"https://else.example"}});
  EXPECT_EQ(header(other.service.common_headers(request), "Access-Control-Allow-Origin"), "");
}

TEST(RequestIds, AreTheClientsWhereTheyArePlain) {
  TestService test(says("x"));
  HttpRequest request{.method = "GET", .path = "/health", .headers = {{"x-request-id", "abc-1.2_3"}}};
  test.service.screen(request);
  EXPECT_EQ(header(test.service.common_headers(request), "X-Request-Id"), "abc-1.2_3");
  request.headers = {{"x-request-id", "a\"b"}};
  test.service.screen(request);
  EXPECT_TRUE(request.id.starts_with("req-"));
}

TEST(Limits, TurnAwayUnreadWhereNoPlaceIsFree) {
  TestService test(endless, {.max_places = 1});
  const HttpRequest chat = TestService::post_request(kChat, "{this is not read");
  EXPECT_FALSE(test.service.turn_away(chat));
  const HttpReply running = test.begin(TestService::post_request(kChat, kHi));
  const std::optional<HttpReply> refused = test.service.turn_away(chat);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(header(refused->headers, "Retry-After"), "1");
  // It may end a session, for which no place is needed.
  EXPECT_FALSE(test.service.turn_away(TestService::post_request("/v1/chat/interactive", "{}")));
  EXPECT_FALSE(test.service.turn_away(TestService::post_request("/tokenize", "{}")));
  EXPECT_NE(test.get("/metrics").body.find("lanner:admission_rejections_total{model_name=\"test\"} 1"),
            std::string::npos);
  running.late->cancel();
  EXPECT_TRUE(test.service.wait_until_idle(steady_clock::now() + seconds(10)));
  EXPECT_FALSE(test.service.turn_away(chat));
}

TEST(Limits, TurnAwayWhatIsTooMuch) {
  TestService test(endless, {.max_places = 3});
  const HttpReply first = test.begin(TestService::post_request(kChat, kHi));
  const std::string two = R"({"messages": [{"role": "user", "content": "Hi"}], "n": 2})";
  const HttpReply second = test.begin(TestService::post_request(kChat, two));
  EXPECT_NE(second.late, nullptr);
  const HttpReply third = test.post(kChat, kHi);
  EXPECT_EQ(third.status, 429);
  EXPECT_EQ(header(third.headers, "Retry-After"), "1");
  EXPECT_EQ(test.refusal("/v1/embeddings", R"({"input": "x"})", 429)["type"], "rate_limit_error");
  EXPECT_NE(test.get("/metrics").body.find("lanner:admission_rejections_total{model_name=\"test\"} 2"),
            std::string::npos);
  first.late->cancel();
  second.late->cancel();
  EXPECT_TRUE(test.service.wait_until_idle(steady_clock::now() + seconds(10)));
  EXPECT_EQ(test.engine.cancels(), 2);
  // One alone is let in, however many answers it makes.
  const HttpReply large =
      test.begin(TestService::post_request(kChat, R"({"messages": [{"role": "user", "content": "Hi"}], "n": 9})"));
  ASSERT_NE(large.late, nullptr);
  large.late->cancel();
}

TEST(Ending, RefusesNewWorkAndAbortsOld) {
  TestService test(endless);
  const HttpReply running = test.begin(TestService::post_request(kChat, kHi));
  EXPECT_EQ(test.get("/health/ready").status, 200);
  test.service.close();
  EXPECT_EQ(test.get("/health/ready").status, 503);
  EXPECT_EQ(test.get("/health").status, 503);
  EXPECT_EQ(test.get("/health/live").status, 200);
  EXPECT_EQ(test.get("/v1/models").status, 200);
  HttpRequest head = TestService::post_request(kChat, "");
  EXPECT_TRUE(test.service.screen(head).has_value());  // before its body is read
  const HttpReply refused = test.post(kChat, kHi);
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(header(refused.headers, "Retry-After"), "5");
  EXPECT_FALSE(test.service.wait_until_idle(steady_clock::now() + std::chrono::milliseconds(20)));
  test.service.abort_all();
  const Json answer = Json::parse(finish(running).body);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "abort");
  EXPECT_TRUE(test.service.wait_until_idle(steady_clock::now() + seconds(10)));
}

TEST(Ending, AServiceMayGoWhileAnswersAreMade) {
  std::shared_ptr<LateAnswer> late;
  {
    TestService test(endless);
    late = test.begin(TestService::post_request(kChat, kHi)).late;
  }
  late.reset();
}

TEST(Ending, ACancelReachesWhatHasNotBegun) {
  TestService test([](const Request&) {
    Script script;
    script.tokens = {byte_tokens("x")};
    script.first_delay = seconds(3600);
    return script;
  });
  const HttpReply waiting = test.begin(TestService::post_request(kChat, kHi));
  waiting.late->cancel();
  EXPECT_TRUE(test.service.wait_until_idle(steady_clock::now() + seconds(10)));
}

TEST(Ending, PromptsEndWithTheirClient) {
  TestService test([](const Request&) {
    Script script;
    script.tokens = {byte_tokens("x")};
    script.first_delay = seconds(3600);
    return script;
  });
  std::size_t asked = 0;
  for (const char* path : {"/v1/embeddings", "/pooling", "/get_ppl"}) {
    const auto left = std::make_shared<std::atomic<bool>>(false);
    HttpRequest request = TestService::post_request(path, R"({"input": "two tokens"})");
    request.client_left = left;
    HttpReply reply;
    std::thread waiting([&] { reply = test.begin(request); });
    ++asked;
    while (test.engine.requests().size() < asked) std::this_thread::yield();
    *left = true;
    waiting.join();
    EXPECT_EQ(reply.status, 503) << path;
    EXPECT_TRUE(test.service.wait_until_idle(steady_clock::now() + seconds(10)));
  }
  EXPECT_EQ(test.engine.cancels(), 3);
  std::thread waiting([&] { EXPECT_EQ(test.post("/get_ppl", R"({"input": "two tokens"})").status, 503); });
  while (test.engine.requests().size() < asked + 1) std::this_thread::yield();
  test.service.abort_all();
  waiting.join();
}

TEST(Pieces, OfAStreamAreBounded) {
  constexpr std::size_t kTokens = 900;
  TestService test(says(std::string(kTokens, 'x')));
  const HttpReply reply = test.begin(TestService::post_request(
      kChat, R"({"messages": [{"role": "user", "content": "Hi"}], "stream": true, "logprobs": true})"));
  ASSERT_TRUE(test.service.wait_until_idle(steady_clock::now() + seconds(10)));
  Reader reader(*reply.late);  // some events may not have reached it yet
  std::size_t pieces = 0;
  std::size_t events = 0;
  for (bool done = false; !done && pieces < 1000; ++pieces) {
    const LateAnswer::Piece piece = reader.next();
    EXPECT_LT(piece.bytes.size(), 70U << 10U);
    for (std::size_t at = 0; (at = piece.bytes.find(R"("content":"x")", at)) != std::string::npos; ++at) ++events;
    done = piece.done;
  }
  EXPECT_GT(pieces, 2U);
  EXPECT_EQ(events, kTokens);
}

TEST(Pieces, OfAWholeAnswerWithManyTokensAreWrittenElsewhere) {
  for (const bool many : {false, true}) {
    TestService test(says(std::string(many ? 5'000 : 50, 'x')), {}, {.session_len = 10'000});
    const HttpReply reply = test.begin(TestService::post_request(kChat, kHi));
    ASSERT_TRUE(Reader(*reply.late).next().done);
    EXPECT_EQ(reply.late->reply_takes_long(), many);
  }
}

TEST(Health, NoticesAnEngineThatIsStuck) {
  Health health{seconds(60)};
  const auto start = steady_clock::now();
  EngineStats stats;
  health.observe(stats, start);
  stats.running = 1;
  health.observe(stats, start + seconds(100));  // idle until just before
  health.observe(stats, start + seconds(130));
  EXPECT_TRUE(health.stuck());
  stats.steps = 1;
  health.observe(stats, start + seconds(131));
  EXPECT_FALSE(health.stuck());
  health.observe(stats, start + seconds(190));
  EXPECT_FALSE(health.stuck());
  health.observe(stats, start + seconds(192));
  EXPECT_TRUE(health.stuck());
  for (int i = 200; i < 500; i += 50) {  // one long step that gets on
    ++stats.progress;
    health.observe(stats, start + seconds(i));
    EXPECT_FALSE(health.stuck());
  }
  health.observe(stats, start + seconds(520));
  EXPECT_TRUE(health.stuck());
  stats.running = 0;
  health.observe(stats, start + seconds(600));
  EXPECT_FALSE(health.stuck());
}

TEST(SlowReaders, AreCancelled) {
  TestService test(
      [](const Request&) {
        Script script;
        script.tokens = {byte_tokens("x")};
        script.endless = true;
        return script;
      },
      {}, {.session_len = 100'000'000});
  const HttpReply reply = test.begin(
      TestService::post_request(kChat, R"({"messages": [{"role": "user", "content": "Hi"}], "stream": true})"));
  ASSERT_NE(reply.late, nullptr);
  reply.late->start([] {});
  EXPECT_TRUE(test.service.wait_until_idle(steady_clock::now() + seconds(20)));  // though nobody takes anything
  const LateAnswer::Piece piece = reply.late->take();
  EXPECT_TRUE(piece.done);
  EXPECT_NE(piece.bytes.find("too slow"), std::string::npos);
}

TEST(Metrics, HaveTheNamesOfVllm) {
  TestService test(says("Hello"), {.metrics_prefix = "vllm"});
  test.post_json(kChat, kHi);
  const std::string text = test.get("/metrics").body;
  for (const char* line : {"# TYPE vllm:num_requests_running gauge\n",
                           "vllm:request_success_total{model_name=\"test\",finished_reason=\"stop\"} 1\n",
                           "vllm:time_to_first_token_seconds_count{model_name=\"test\"} 1\n",
                           "vllm:inter_token_latency_seconds_count{model_name=\"test\"} 4\n",
                           "vllm:request_prompt_tokens_sum{model_name=\"test\"} 20\n",
                           "vllm:request_prompt_tokens_bucket{model_name=\"test\",le=\"20\"} 1\n",
                           "vllm:request_prompt_tokens_bucket{model_name=\"test\",le=\"10\"} 0\n",
                           "vllm:request_prompt_tokens_bucket{model_name=\"test\",le=\"+Inf\"} 1\n",
                           "vllm:generation_tokens_total{model_name=\"test\"} 6\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
  TestService none(says("x"), {.metrics = false});
  EXPECT_EQ(none.get("/metrics").status, 404);
}

TEST(Docs, AreWrittenFromTheTable) {
  TestService test(says("x"), {.model_name = "a<b"});
  const Json document = Json::parse(test.get("/openapi.json").body);
  EXPECT_EQ(document["openapi"], "3.1.0");
  for (const Route& route : routes()) {
    const char* method = route.method == std::string_view("GET") ? "get" : "post";
    EXPECT_TRUE(document["paths"][route.path].contains(method)) << route.path;
  }
  const Json& schema =
      document["paths"][kChat]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"];
  EXPECT_EQ(schema["n"]["maximum"], 128);
  const Json& answer = document["paths"][kChat]["post"]["responses"]["200"]["content"];
  EXPECT_TRUE(answer.contains("application/json") && answer.contains("text/event-stream"));
  const HttpReply page = test.call({.method = "GET", .path = "/", .headers = {{"host", "example.org:1<b>"}}});
  EXPECT_NE(page.body.find("curl http://example.org:1&lt;b&gt;/v1/chat/completions"), std::string::npos);
  EXPECT_EQ(page.content_type, "text/html; charset=utf-8");
  EXPECT_NE(page.body.find("a&lt;b"), std::string::npos);
  EXPECT_NE(page.body.find("/v1/chat/interactive"), std::string::npos);
  TestService none(says("x"), {.docs = false});
  EXPECT_EQ(none.get("/").status, 404);
  EXPECT_EQ(none.get("/openapi.json").status, 404);
}

TEST(ChatPage, IsOpenToAllAndRefersToNoOtherFile) {
  TestService test(says("x"), {.api_keys = {"k"}, .docs = false});
  const HttpReply page = test.get("/chat");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.content_type, "text/html; charset=utf-8");
  EXPECT_TRUE(page.body.starts_with("<!doctype html>"));
  EXPECT_TRUE(page.body.ends_with("</html>\n"));
  EXPECT_EQ(page.body.find("@S"), std::string::npos) << "a part is missing";
  for (const char* reference : {"src=\"", "<link rel=\"stylesheet", "@import", "url("}) {
    EXPECT_EQ(page.body.find(reference), std::string::npos) << reference;
  }
  const auto header = [&](std::string_view name) {
    const auto found = std::ranges::find(page.headers, name, [](const auto& field) { return field.first; });
    return found == page.headers.end() ? std::string() : found->second;
  };
  const std::string policy = header("Content-Security-Policy");
  EXPECT_TRUE(policy.starts_with("default-src 'none'; script-src 'sha256-")) << policy;
  EXPECT_EQ(policy.find("unsafe"), std::string::npos) << policy;
}

TEST(Admin, NeedsAFlagAndAKey) {
  std::atomic<int> ended = 0;
  const ServiceOptions options{
      .api_keys = {"k"}, .allow_terminate = true, .allow_abort = true, .on_terminate = [&] { ++ended; }};
  TestService test(endless, options);
  HttpRequest request{.method = "GET", .path = "/terminate"};
  EXPECT_EQ(test.call(request).status, 401);
  request.headers = {{"authorization", "Bearer k"}};
  EXPECT_EQ(test.call(request).status, 200);
  EXPECT_EQ(ended, 1);
  HttpRequest chat = TestService::post_request(kChat, kHi);
  chat.headers.emplace_back("authorization", "Bearer k");
  const HttpReply running = test.begin(chat);
  HttpRequest abort = TestService::post_request("/abort_request", R"({"abort_all": true})");
  abort.headers.emplace_back("authorization", "Bearer k");
  EXPECT_EQ(test.call(abort).status, 200);
  EXPECT_EQ(Json::parse(finish(running).body)["choices"][0]["finish_reason"], "abort");
  TestService closed(endless);
  EXPECT_EQ(closed.get("/terminate").status, 403);
  HttpRequest head = TestService::post_request("/abort_request", "");
  const auto refused = closed.service.screen(head);  // before its body is read
  EXPECT_EQ(refused ? refused->status : 0, 403);
}

constexpr const char* kInteractive = "/v1/chat/interactive";

std::string prompt_of(const ScriptedEngine& engine, std::size_t at) {
  const Request request = engine.requests().at(at);
  std::string text;
  for (const std::int32_t id : request.prompt) {
    if (id < 256) text += static_cast<char>(id);
  }
  return text;
}

TEST(Interactive, GoesOnWhereItWas) {
  TestService test(says("ok"));
  const Json first = test.post_json(kInteractive, R"({"prompt": "one", "session_id": 5, "interactive_mode": true})");
  EXPECT_EQ(first["text"], "ok");
  EXPECT_EQ(first["finish_reason"], "stop");
  EXPECT_EQ(first["tokens"], 3);
  EXPECT_EQ(first["history_tokens"], 0);
  EXPECT_EQ(first["input_tokens"], 1 + 6 + 3 + 11);
  EXPECT_EQ(test.engine.requests().at(0).max_new_tokens, 512);
  const Json second = test.post_json(kInteractive, R"({"prompt": "two", "session_id": 5, "interactive_mode": true})");
  EXPECT_EQ(prompt_of(test.engine, 1), "<user>one<assistant>ok<user>two<assistant>");
  EXPECT_EQ(second["history_tokens"], 24);
  test.post_json(kInteractive, R"({"prompt": "", "session_id": 5, "request_output_len": 0})");  // the end
  test.post_json(kInteractive, R"({"prompt": "three", "session_id": 5})");
  EXPECT_EQ(prompt_of(test.engine, 2), "<user>three<assistant>");
  test.post_json(kInteractive, R"({"prompt": "four", "session_id": 5})");  // the last one was not interactive
  EXPECT_EQ(prompt_of(test.engine, 3), "<user>four<assistant>");
}

TEST(Interactive, StreamsBareLines) {
  TestService test(says("ab"));
  const HttpReply reply = test.post(kInteractive, R"({"prompt": "x", "stream": true})");
  EXPECT_EQ(reply.body,
            "{\"text\":\"a\",\"tokens\":1,\"input_tokens\":19,\"history_tokens\":0,\"finish_reason\":null}\n"
            "{\"text\":\"b\",\"tokens\":2,\"input_tokens\":19,\"history_tokens\":0,\"finish_reason\":null}\n"
            "{\"text\":\"\",\"tokens\":3,\"input_tokens\":19,\"history_tokens\":0,\"finish_reason\":\"stop\"}\n");
}

TEST(Interactive, CancelsAndForgetsThatTurn) {
  TestService test(endless);
  const std::string ask = R"({"prompt": "one", "session_id": 5, "interactive_mode": true})";
  const HttpReply running = test.begin(TestService::post_request(kInteractive, ask));
  EXPECT_EQ(test.refusal(kInteractive, ask, 409)["message"], "The session_id 5 is occupied.");
  test.post_json(kInteractive, R"({"prompt": "", "session_id": 5, "cancel": true})");
  EXPECT_EQ(Json::parse(finish(running).body)["finish_reason"], "abort");
  const HttpReply again = test.begin(TestService::post_request(kInteractive, ask));
  ASSERT_NE(again.late, nullptr);
  EXPECT_EQ(prompt_of(test.engine, 1), "<user>one<assistant>");
  again.late->cancel();
  EXPECT_EQ(test.refusal(kInteractive, R"({"prompt": "", "cancel": true})")["param"], "session_id");
}

TEST(Interactive, SaysWhenAConversationIsFull) {
  TestService test(says("ok"), {}, {.session_len = 30});
  const std::string ask = R"({"prompt": "one", "session_id": 5, "interactive_mode": true})";
  EXPECT_EQ(test.post_json(kInteractive, ask)["finish_reason"], "stop");
  const Json full = test.post_json(kInteractive, ask);
  EXPECT_EQ(full["finish_reason"], "length");
  EXPECT_EQ(full["tokens"], 0);
  EXPECT_EQ(full["text"], "");
}

TEST(Sessions, AreForgotten) {
  Sessions sessions(2, 1'000'000, seconds(100));
  const auto start = steady_clock::now();
  const auto turn = [&](std::uint64_t id, int second) {
    const auto begun = sessions.begin(id, start + seconds(second));
    sessions.keep(begun->id, {{"user", "x"}}, 1, start + seconds(second));
    return begun->history.size();
  };
  EXPECT_EQ(turn(1, 0), 0U);
  EXPECT_EQ(turn(2, 10), 0U);
  EXPECT_EQ(turn(1, 20), 1U);
  EXPECT_EQ(turn(3, 30), 0U);  // the second one goes
  EXPECT_EQ(sessions.size(), 2U);
  EXPECT_EQ(turn(1, 40), 1U);
  EXPECT_EQ(turn(2, 50), 0U);
  EXPECT_EQ(turn(1, 200), 0U);  // idle for too long
}

TEST(Sessions, HoldNoMoreBytesThanTheyMay) {
  const std::vector<Message> long_ones{
      {.role = "user", .content = std::string(300, 'x'), .more = std::string(300, 'x')}};
  Sessions sessions(100, 2'000, seconds(100));
  const auto now = steady_clock::now();
  const auto talk = [&](std::uint64_t id, int second) {
    const auto turn = sessions.begin(id, now + seconds(second));
    EXPECT_TRUE(sessions.hold(turn->id, long_ones));
    sessions.keep(turn->id, long_ones, 1, now + seconds(second));
    return turn->history.size();
  };
  EXPECT_EQ(talk(1, 1), 0U);
  EXPECT_EQ(talk(2, 2), 0U);
  EXPECT_EQ(talk(3, 3), 0U);  // the first one goes
  EXPECT_EQ(sessions.size(), 2U);
  EXPECT_LE(sessions.bytes(), 2'000U);
  EXPECT_EQ(talk(2, 4), 1U);
  // Those that are being answered stay.
  const auto fourth = sessions.begin(4, now);
  const auto fifth = sessions.begin(5, now);
  EXPECT_TRUE(sessions.hold(fourth->id, long_ones));
  EXPECT_TRUE(sessions.hold(fifth->id, long_ones));
  const auto sixth = sessions.begin(6, now);
  EXPECT_FALSE(sessions.hold(sixth->id, long_ones));
  sessions.release(sixth->id, now);
  std::vector<Message> longer = long_ones;
  longer.insert(longer.end(), 3, long_ones.front());
  sessions.keep(fifth->id, longer, 1, now);  // more than there is room for, even alone
  EXPECT_EQ(sessions.size(), 1U);
  sessions.end(fourth->id);
  EXPECT_EQ(sessions.bytes(), 0U);
}

TEST(Sessions, AStaleTurnChangesNothing) {
  Sessions sessions(10, 1'000'000, seconds(100));
  const auto now = steady_clock::now();
  const auto stale = sessions.begin(1, now);
  EXPECT_TRUE(sessions.running(stale->id, {7}));
  EXPECT_EQ(sessions.end_session(1), std::vector<RequestId>{7});
  const auto fresh = sessions.begin(1, now);
  ASSERT_TRUE(fresh);
  sessions.release(stale->id, now);
  sessions.end(stale->id);
  sessions.keep(stale->id, {{"user", "old"}}, 1, now);
  EXPECT_FALSE(sessions.running(stale->id, {8}));
  EXPECT_FALSE(sessions.begin(1, now));  // the fresh one is still being answered
  sessions.keep(fresh->id, {{"user", "new"}}, 1, now);
  EXPECT_EQ(sessions.begin(1, now)->history.at(0).content, "new");
}

TEST(Interactive, AnEndStopsTheAnswer) {
  TestService test(endless);
  const std::string ask = R"({"prompt": "one", "session_id": 5, "interactive_mode": true})";
  const HttpReply running = test.begin(TestService::post_request(kInteractive, ask));
  test.post_json(kInteractive, R"({"prompt": "", "session_id": 5, "request_output_len": 0})");
  EXPECT_EQ(Json::parse(finish(running).body)["finish_reason"], "abort");
}

TEST(Interactive, SaysWhenTheSessionsAreFull) {
  TestService test(says("ok"), {.max_session_bytes = 1'000});
  const std::string ask =
      R"({"session_id": 5, "interactive_mode": true, "prompt": ")" + std::string(1'000, 'x') + "\"}";
  EXPECT_EQ(test.refusal(kInteractive, ask, 503)["code"], "sessions_full");
  EXPECT_EQ(test.post(kInteractive, R"({"prompt": "one", "session_id": 5, "interactive_mode": true})").status, 200);
}

}  // namespace
}  // namespace lanner::server
