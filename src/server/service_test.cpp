// Every route, over an engine that follows a script, without sockets.

#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>
#include <vector>

#include "server/routes.h"
#include "server/server_test_support.h"

namespace lanner::server {
namespace {

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kHi = R"({"messages": [{"role": "user", "content": "Hi"}]})";

std::string hi_with(const std::string& more) {
  return R"({"messages": [{"role": "user", "content": "Hi"}], )" + more + "}";
}

/// The data of each event; the last must be [DONE].
std::vector<Json> events(const std::string& body) {
  std::vector<Json> list;
  std::string_view rest = body;
  bool done = false;
  while (!rest.empty()) {
    const std::size_t end = rest.find("\n\n");
    EXPECT_TRUE(rest.starts_with("data: ") && end != std::string_view::npos) << rest;
    if (end == std::string_view::npos) break;
    const std::string_view data = rest.substr(6, end - 6);
    rest.remove_prefix(end + 2);
    EXPECT_FALSE(done) << "something follows [DONE]";
    done = data == "[DONE]";
    if (!done) list.push_back(Json::parse(data, nullptr, false));
  }
  EXPECT_TRUE(done) << body;
  return list;
}

/// What a prompt of bytes says; the other tokens are left out.
std::string prompt_text(const Request& request) {
  std::string text;
  for (const std::int32_t id : request.prompt) {
    if (id < 256) text += static_cast<char>(id);
  }
  return text;
}

TEST(Chat, AnswersAtOnce) {
  TestService test(says("Hello"));
  const Json answer = test.post_json(kChat, hi_with(R"("model": "test")"));
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_TRUE(answer["id"].get<std::string>().starts_with("chatcmpl-"));
  EXPECT_EQ(answer["model"], "test");
  EXPECT_EQ(answer["choices"].size(), 1U);
  EXPECT_EQ(answer["choices"][0]["message"], Json::parse(R"({"role":"assistant","content":"Hello","refusal":null})"));
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(answer["choices"][0]["logprobs"], nullptr);
  // <bos> <user> H i <assistant>, in bytes; five letters and the end
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 1 + 6 + 2 + 11);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 6);
  EXPECT_EQ(prompt_text(test.engine.requests().at(0)), "<user>Hi<assistant>");
}

TEST(Chat, Streams) {
  TestService test(says("Hé"));
  const HttpReply reply = test.post(kChat, hi_with(R"("stream": true)"));
  EXPECT_EQ(reply.content_type, "text/event-stream");
  const auto list = events(reply.body);
  ASSERT_EQ(list.size(), 4U);
  EXPECT_EQ(list[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(list[0]["choices"][0]["delta"], Json::parse(R"({"role":"assistant","content":""})"));
  EXPECT_EQ(list[1]["choices"][0]["delta"]["content"], "H");
  EXPECT_EQ(list[2]["choices"][0]["delta"]["content"], "é");  // never half of it
  EXPECT_EQ(list[2]["choices"][0]["finish_reason"], nullptr);
  EXPECT_EQ(list[3]["choices"][0]["delta"], Json::object());
  EXPECT_EQ(list[3]["choices"][0]["finish_reason"], "stop");
  for (const Json& event : list) {
    EXPECT_EQ(event["id"], list[0]["id"]);
    EXPECT_FALSE(event.contains("usage"));
  }
}

TEST(Chat, StreamsUsageWhenAsked) {
  TestService test(says("Hi"));
  const HttpReply reply = test.post(kChat, hi_with(R"("stream": true, "stream_options": {"include_usage": true})"));
  const auto list = events(reply.body);
  ASSERT_EQ(list.size(), 5U);
  for (std::size_t i = 0; i + 1 < list.size(); ++i) EXPECT_EQ(list[i].at("usage"), nullptr);
  EXPECT_EQ(list.back()["choices"], Json::array());
  EXPECT_EQ(list.back()["usage"]["completion_tokens"], 3);
}

TEST(Chat, HandsOnWhatIsAskedFor) {
  TestService test(says("Hello"));
  test.post_json(kChat, hi_with(R"("temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "seed": -2, "n": 2,
      "presence_penalty": 1.5, "frequency_penalty": -0.5, "repetition_penalty": 1.25, "max_completion_tokens": 3,
      "max_tokens": 9, "logit_bias": {"65": -100, "66": 1.5}, "min_new_tokens": 1, "stop_token_ids": [7],
      "logprobs": true, "top_logprobs": 4)"));
  const Request request = test.engine.requests().at(0);
  EXPECT_EQ(request.sampling.temperature, 0.5F);
  EXPECT_EQ(request.sampling.top_p, 0.25F);
  EXPECT_EQ(request.sampling.top_k, 7);
  EXPECT_EQ(request.sampling.min_p, 0.125F);
  EXPECT_EQ(request.sampling.seed, static_cast<std::uint64_t>(-2));
  EXPECT_EQ(request.sampling.presence_penalty, 1.5F);
  EXPECT_EQ(request.sampling.frequency_penalty, -0.5F);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.25F);
  EXPECT_EQ(request.sampling.logprobs, 4);
  const std::vector<std::pair<std::int32_t, float>> biases{{65, -100.0F}, {66, 1.5F}};
  EXPECT_EQ(request.sampling.logit_bias, biases);
  EXPECT_EQ(request.n, 2);
  EXPECT_EQ(request.max_new_tokens, 3);
  EXPECT_EQ(request.min_new_tokens, 1);
  EXPECT_EQ(request.stop_ids, (std::vector<std::int32_t>{kTestEos, 7}));
}

TEST(Chat, LeavesTheRestOfTheContextToAnAnswer) {
  TestService test(says("Hello"), {}, {.session_len = 100});
  test.post_json(kChat, hi_with(R"("ignore_eos": true)"));
  EXPECT_EQ(test.engine.requests().at(0).max_new_tokens, 80);
  EXPECT_EQ(test.engine.requests().at(0).stop_ids, std::vector<std::int32_t>());
}

TEST(Chat, MakesSeveralChoices) {
  TestService test([](const Request&) {
    Script script;
    script.tokens = {byte_tokens("one"), byte_tokens("two!")};
    return script;
  });
  const Json answer = test.post_json(kChat, hi_with(R"("n": 2)"));
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "one");
  EXPECT_EQ(answer["choices"][1]["message"]["content"], "two!");
  EXPECT_EQ(answer["choices"][1]["index"], 1);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 7);
  std::vector<std::string> texts(2);
  for (const Json& event : events(test.post(kChat, hi_with(R"("n": 2, "stream": true)")).body)) {
    const Json& choice = event["choices"][0];
    texts.at(choice["index"]) += choice["delta"].value("content", "");
  }
  EXPECT_EQ(texts, (std::vector<std::string>{"one", "two!"}));
}

TEST(Chat, StopsAtStrings) {
  TestService test(says("Hello world"));
  const Json answer = test.post_json(kChat, hi_with(R"("stop": ["wor"])"));
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "Hello ");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  const Json longer = test.post_json(kChat, hi_with(R"("stop": "wor", "include_stop_str_in_output": true)"));
  EXPECT_EQ(longer["choices"][0]["message"]["content"], "Hello wor");
}

TEST(Chat, TellsLogprobs) {
  TestService test([](const Request&) {
    Script script;
    script.tokens = {{'a', 0xC3, 0xA9, kTestEos}};
    script.logprobs = {-0.5F, -1.5F, -INFINITY, 0.0F};
    return script;
  });
  const Json answer = test.post_json(kChat, hi_with(R"("logprobs": true, "top_logprobs": 1)"));
  const Json& content = answer["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 3U);
  EXPECT_EQ(content[0]["token"], "a");
  EXPECT_EQ(content[0]["logprob"], -0.5);
  EXPECT_EQ(content[0]["bytes"], Json::array({97}));
  EXPECT_EQ(content[0]["top_logprobs"][0]["token"], "a");
  EXPECT_EQ(content[1]["bytes"], Json::array({0xC3}));  // half a character, in bytes
  EXPECT_EQ(content[1]["token"], "\xEF\xBF\xBD");
  EXPECT_EQ(content[2]["logprob"], -9999.0);
  std::size_t streamed = 0;
  for (const Json& event : events(test.post(kChat, hi_with(R"("logprobs": true, "stream": true)")).body)) {
    const Json& logprobs = event["choices"][0]["logprobs"];
    if (!logprobs.is_null()) streamed += logprobs["content"].size();
  }
  EXPECT_EQ(streamed, 3U);
}

TEST(Chat, ReadsMessages) {
  TestService test(says("x"));
  test.post_json(kChat, R"({"messages": [{"role": "developer", "content": "Be brief"},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": null}]})");
  EXPECT_EQ(prompt_text(test.engine.requests().at(0)), "<system>Be brief<user>a\nb<assistant>");
  test.post_json(kChat, R"({"messages": "as it is"})");
  EXPECT_EQ(prompt_text(test.engine.requests().at(1)), "as it is");
}

TEST(Chat, GivesTheTemplateItsVariables) {
  const auto jinja = "{{ enable_thinking }}|{{ reasoning_effort }}|{{ extra }}";
  TestPipeline pipeline = make_test_pipeline(says("x"), {}, jinja);
  ScriptedEngine& engine = *pipeline.engine;
  Service service(std::move(pipeline.pipeline), {});
  const HttpRequest request = TestService::post_request(
      kChat, hi_with(R"("enable_thinking": false, "reasoning_effort": "low", "chat_template_kwargs": {"extra": 5})"));
  EXPECT_EQ(finish(service.handle(request)).status, 200);
  EXPECT_EQ(prompt_text(engine.requests().at(0)), "False|low|5");
}

TEST(Chat, RefusesWhatItCannotDo) {
  TestService test(says("x"));
  const auto message = [&](const std::string& more) { return test.refusal(kChat, hi_with(more))["message"]; };
  EXPECT_EQ(test.refusal(kChat, hi_with(R"("tools": [{}])"))["param"], "tools[0].type");
  EXPECT_EQ(test.refusal(kChat, hi_with(R"("response_format": {"type": "xml"})"))["param"], "response_format.type");
  EXPECT_EQ(message(R"("n": 129)"), "n: must be between 1 and 128");
  EXPECT_EQ(message(R"("n": 1000000000)"), "n: must be between 1 and 128");
  EXPECT_EQ(message(R"("temperature": -1)"), "temperature: must be between 0 and 2");
  EXPECT_EQ(message(R"("top_logprobs": 3)"), "top_logprobs: only together with \"logprobs\": true");
  EXPECT_EQ(message(R"("stream_options": {})"), "stream_options: only together with \"stream\": true");
  EXPECT_EQ(message(R"("functions": [])"), "functions: unknown field");
  EXPECT_EQ(message(R"("chat_template_kwargs": {"a": []})"),
            "chat_template_kwargs.a: must be a string, a number or a truth value");
  const auto of_messages = [&](const std::string& list) {
    return test.refusal(kChat, R"({"messages": )" + list + "}")["message"].get<std::string>();
  };
  EXPECT_EQ(of_messages("[]"), "messages: must not be empty");
  EXPECT_EQ(of_messages("[1]"), "messages: must be a string or a list of messages");
  EXPECT_EQ(of_messages(R"([{"role": "robot", "content": ""}])"),
            "messages[0].role: must be system, developer, user, assistant or tool");
  EXPECT_EQ(of_messages(R"([{"role": "user"}])"), "messages[0].content: this field is required");
  EXPECT_EQ(of_messages(R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])"),
            "messages[0].content[0].type: 'image_url' is not available: this model takes text alone");
  const Json unknown = test.refusal(kChat, hi_with(R"("model": "gpt-5")"), 404);
  EXPECT_EQ(unknown["message"], "The model 'gpt-5' does not exist.");
  EXPECT_EQ(unknown["code"], "model_not_found");
}

TEST(Chat, SaysWhenAPromptIsTooLong) {
  TestService test(says("x"), {}, {.session_len = 10});
  const Json error = test.refusal(kChat, kHi);
  EXPECT_EQ(error["code"], "context_length_exceeded");
}

TEST(Chat, AFailureEndsItsRequestAlone) {
  int calls = 0;
  TestService test([&](const Request&) {
    Script script;
    script.tokens = {byte_tokens("Hello")};
    if (++calls <= 2) script.fail_after = 2;
    return script;
  });
  EXPECT_EQ(test.refusal(kChat, kHi, 500)["type"], "server_error");
  const auto list = events(test.post(kChat, hi_with(R"("stream": true)")).body);
  EXPECT_EQ(list.back()["error"]["message"], "the script says so");
  EXPECT_EQ(test.post(kChat, kHi).status, 200);
}

TEST(Chat, HasLeftItsPlaceWhenItsReaderHearsOfTheEnd) {
  TestService test(
      [](const Request&) {
        Script script;
        script.tokens = {{kTestEos}};
        script.delay = std::chrono::milliseconds(50);  // so that the end comes after start()
        return script;
      },
      {.max_places = 1});
  for (int i = 0; i < 3; ++i) {
    const HttpReply reply = test.begin(TestService::post_request(kChat, kHi));
    ASSERT_NE(reply.late, nullptr);
    std::promise<bool> idle;
    reply.late->start([&] { idle.set_value(test.service.wait_until_idle(std::chrono::steady_clock::now())); });
    EXPECT_TRUE(idle.get_future().get());
    EXPECT_TRUE(reply.late->take().done);
  }
}

TEST(Completions, AreHeldToAFormat) {
  TestService test(says("x"));
  test.post_json("/v1/completions", R"({"prompt": ["a", "b"], "response_format": {"type": "json_object"}})");
  ASSERT_EQ(test.engine.requests().size(), 2U);
  for (const Request& request : test.engine.requests()) EXPECT_NE(request.grammar, nullptr);
  EXPECT_EQ(test.refusal("/v1/completions", R"({"prompt": "a", "response_format": {"type": "xml"}})")["param"],
            "response_format.type");
}

TEST(Completions, GoOnWithEachPrompt) {
  TestService test([](const Request& request) {
    Script script;
    std::vector<std::int32_t> ids = byte_tokens(prompt_text(request) + "!");
    script.tokens = {ids};
    return script;
  });
  const Json answer = test.post_json("/v1/completions", R"({"prompt": ["a", "b"], "n": 2, "echo": true})");
  std::vector<std::string> texts;
  for (const Json& choice : answer["choices"]) {
    EXPECT_EQ(choice["index"], texts.size());
    texts.push_back(choice["text"]);
  }
  EXPECT_EQ(texts, (std::vector<std::string>{"aa!", "aa!", "bb!", "bb!"}));
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 4);  // each with <bos>
  const Json ids = test.post_json("/v1/completions", R"({"prompt": [104, 105], "echo": true})");
  EXPECT_EQ(ids["choices"][0]["text"], "hihi!");
  EXPECT_EQ(test.engine.requests().back().prompt, (std::vector<std::int32_t>{104, 105}));
}

TEST(Completions, StreamEachPromptUnderItsIndex) {
  TestService test(says("ab"));
  std::vector<std::string> texts(2);
  const HttpReply reply = test.post("/v1/completions", R"({"prompt": ["x", "y"], "stream": true, "echo": true})");
  for (const Json& event : events(reply.body)) texts.at(event["choices"][0]["index"]) += event["choices"][0]["text"];
  EXPECT_EQ(texts, (std::vector<std::string>{"xab", "yab"}));
}

TEST(Completions, TellLogprobs) {
  TestService test([](const Request&) {
    Script script;
    script.tokens = {byte_tokens("ab")};
    script.logprobs = {-0.5F, -1.0F};
    return script;
  });
  const Json answer = test.post_json("/v1/completions", R"({"prompt": "x", "logprobs": 2})");
  EXPECT_EQ(answer["choices"][0]["logprobs"], Json::parse(R"({"tokens": ["a", "b"], "token_logprobs": [-0.5, -1.0],
      "top_logprobs": [{"a": -0.5}, {"b": -1.0}], "text_offset": [0, 1]})"));
}

TEST(Completions, OneBadPromptRefusesAll) {
  TestService test(says("x"), {}, {.session_len = 10});
  test.refusal("/v1/completions", R"({"prompt": ["short", "much too long for this"]})");
  EXPECT_TRUE(test.service.wait_until_idle(std::chrono::steady_clock::now() + std::chrono::seconds(10)));
  EXPECT_EQ(test.refusal("/v1/completions", R"({"prompt": "x", "echo": true, "logprobs": 0})")["param"], "echo");
  EXPECT_EQ(test.refusal("/v1/completions", R"({"prompt": [999]})")["type"], "invalid_request_error");
}

TEST(Sizes, AreBoundedBeforeAnythingIsDone) {
  TestService test(says("x"), {}, {.session_len = 10});
  const std::string text(3'000, ' ');  // few tokens for some tokenizers, but not this few
  EXPECT_EQ(test.refusal("/v1/completions", R"({"prompt": ")" + text + "\"}")["code"], "context_length_exceeded");
  EXPECT_EQ(test.refusal(kChat, R"({"messages": [{"role": "user", "content": ")" + text + "\"}]}")["code"],
            "context_length_exceeded");
  EXPECT_EQ(test.refusal(kChat, R"({"messages": [{"role": "user", "content": "", "name": ")" + text + "\"}]}")["code"],
            "context_length_exceeded");
  EXPECT_EQ(test.refusal("/v1/embeddings", R"({"input": ")" + text + "\"}")["code"], "context_length_exceeded");
  const std::string large(5'000'000, ' ');
  EXPECT_EQ(test.refusal("/tokenize", R"({"prompt": ")" + large + "\"}")["code"], "context_length_exceeded");
  EXPECT_EQ(test.refusal("/v1/encode", R"({"input": [")" + large + "\"]}")["code"], "context_length_exceeded");
  EXPECT_EQ(test.refusal("/v1/completions", R"({"prompt": ["a","a","a","a","a","a","a","a","a"], "n": 128})")["param"],
            "n");
  EXPECT_TRUE(test.engine.requests().empty());
}

TEST(Sizes, OfAnswersThatAreKeptAreBounded) {
  TestService test(says("x"), {}, {.session_len = 100'000});
  const auto message = [&](const std::string& more) {
    return test.refusal(kChat, hi_with(more))["message"].get<std::string>();
  };
  EXPECT_TRUE(
      message(R"("n": 128, "max_tokens": 200000, "logprobs": true, "top_logprobs": 1)").starts_with("n: n times"));
  EXPECT_TRUE(
      message(R"("n": 128, "max_tokens": 7000, "logprobs": true, "top_logprobs": 20)").starts_with("n: n times"));
  EXPECT_EQ(test.post(kChat, hi_with(R"("n": 128, "max_tokens": 6000, "logprobs": true, "top_logprobs": 20)")).status,
            200);
  EXPECT_EQ(test.post(kChat, hi_with(R"("n": 128, "max_tokens": 200000, "stream": true, "logprobs": true)")).status,
            200);
  const auto ids = [](int count) {
    std::string list = "65";
    for (int i = 1; i < count; ++i) list += ",65";
    return R"({"tokens": [)" + list + "]}";
  };
  EXPECT_EQ(test.post("/detokenize", ids(65'536)).status, 200);
  EXPECT_EQ(test.refusal("/detokenize", ids(65'537))["param"], "tokens");
}

TEST(Generate, AnswersAsLmdeploy) {
  TestService test([](const Request&) {
    Script script;
    script.tokens = {byte_tokens("ab")};
    script.logprobs = {-0.5F, -1.0F};
    return script;
  });
  const Json answer = test.post_json("/generate", R"({"input_ids": [65], "return_logprob": true})");
  EXPECT_EQ(answer, Json::parse(R"({"text": "ab", "output_ids": [97, 98], "meta_info": {"prompt_tokens": 1,
      "completion_tokens": 2, "finish_reason": {"type": "stop"}, "output_token_logprobs": [[-0.5, 97], [-1.0, 98]]}})"));
  EXPECT_EQ(test.engine.requests().at(0).max_new_tokens, 128);
  const auto list = events(test.post("/generate", R"({"prompt": "x", "stream": true})").body);
  EXPECT_EQ(list.at(1)["text"], "b");
  EXPECT_EQ(list.back()["meta_info"]["finish_reason"]["type"], "stop");
  EXPECT_EQ(test.refusal("/generate", R"({"prompt": "x", "input_ids": [1]})")["param"], "prompt");
}

TEST(TextEndpoints, EncodeAndDecode) {
  TestService test(says("x"));
  EXPECT_EQ(test.post_json("/v1/encode", R"({"input": "hi"})"),
            Json::parse(R"({"input_ids": [258, 104, 105], "length": 3})"));
  EXPECT_EQ(test.post_json("/v1/encode", R"({"input": ["hi", "a"], "add_bos": false})"),
            Json::parse(R"({"input_ids": [[104, 105], [97]], "length": [2, 1]})"));
  EXPECT_EQ(test.post_json("/tokenize", R"({"prompt": "hi", "add_special_tokens": false})")["tokens"],
            Json::array({104, 105}));
  EXPECT_EQ(test.post_json("/tokenize", R"({"messages": [{"role": "user", "content": "a"}]})")["count"], 19);
  EXPECT_EQ(test.post_json("/detokenize", R"({"tokens": [258, 104, 105]})")["prompt"], "<bos>hi");
  EXPECT_EQ(test.post_json("/detokenize", R"({"tokens": [258, 104], "skip_special_tokens": true})")["prompt"], "h");
}

TEST(Models, AreListed) {
  TestService test(says("x"), {.model_name = "named"});
  const Json list = Json::parse(test.get("/v1/models").body);
  EXPECT_EQ(list["data"][0]["id"], "named");
  EXPECT_EQ(Json::parse(test.get("/v1/models/named").body)["object"], "model");
  EXPECT_EQ(test.get("/v1/models/other").status, 404);
  EXPECT_EQ(test.get("/v1/models/named/more").status, 404);
}

}  // namespace
}  // namespace lanner::server
