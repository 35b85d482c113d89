#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <thread>

namespace lanner {
namespace {

using Json = nlohmann::ordered_json;

ChatTemplateInputs inputs(Json messages) {
  ChatTemplateInputs result;
  result.messages = std::move(messages);
  return result;
}

Json user(std::string_view text) { return Json::array({Json::object({{"role", "user"}, {"content", text}})}); }

std::string render(const Result<ChatTemplate>& chat, const ChatTemplateInputs& given) {
  EXPECT_TRUE(chat.ok()) << chat.status().message();
  if (!chat.ok()) return {};
  const Result<std::string> prompt = chat->render(given);
  EXPECT_TRUE(prompt.ok()) << prompt.status().message();
  return prompt.ok() ? *prompt : std::string();
}

TEST(ChatTemplate, RendersJinjaWithTheTokenizersVariables) {
  const auto chat = ChatTemplate::from_jinja(
      "{{ bos_token }}{% for m in messages %}\n  {% if true %}\n[{{ m.content }}|{{ name }}]{% endif %}{% endfor %}"
      "{{ eos_token is defined }}{{ tools is none }}",
      {.bos = "<s>"}, "chat.jinja");
  ChatTemplateInputs given = inputs(user("Hi <b>"));
  given.extra["name"] = "n";
  EXPECT_EQ(render(chat, given), "<s>[Hi <b>|n]FalseTrue");
}

TEST(ChatTemplate, WritesJsonAsPythonDoes) {
  const auto chat = ChatTemplate::from_jinja("{{ tools|tojson }}", {}, "x");
  ChatTemplateInputs given;
  given.tools = Json::parse(R"([{"b":1.0,"a":[true,null,1e22,-1e-7,"é<'\u0001"]}])");
  EXPECT_EQ(render(chat, given), "[{\"b\": 1.0, \"a\": [true, null, 1e+22, -1e-07, \"é<'\\u0001\"]}]");
}

TEST(ChatTemplate, BuiltInTemplatesRenderAndKnowTheirStops) {
  const auto chat = ChatTemplate::from_name("chatml", {});
  EXPECT_EQ(render(chat, inputs(user("Q"))), "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chat->stop_words(), std::vector<std::string>{"<|im_end|>"});
}

TEST(ChatTemplate, UnknownNamesSuggestTheNearest) {
  const Status status = ChatTemplate::from_option("internln2", {}).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find("did you mean 'internlm2'"), std::string::npos) << status.message();
  EXPECT_EQ(ChatTemplate::from_option("", {}).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ChatTemplate::from_option("no/such/file.jinja", {}).status().code(), StatusCode::kNotFound);
}

TEST(ChatTemplate, JsonReplacesPieces) {
  const auto chat =
      ChatTemplate::from_option(R"({"model_name":"vicuna","meta_instruction":"m","stop_words":["a","b"]})", {});
  EXPECT_EQ(render(chat, inputs(user("Q"))), "m USER: Q ASSISTANT:");
  EXPECT_EQ(chat->stop_words(), (std::vector<std::string>{"a", "b"}));
  const auto plain = ChatTemplate::from_option(R"({"model_name":"vicuna","capability":"completion"})", {});
  EXPECT_EQ(render(plain, inputs(user("Q"))), "Q");
}

TEST(ChatTemplate, RefusesBadJson) {
  for (const char* json : {"{", "{\"user\":1}", "{\"usr\":\"x\"}", "{\"stop_words\":\"x\"}", "{\"model_name\":3}",
                           "{\"stop_words\":[1]}"}) {
    EXPECT_EQ(ChatTemplate::from_option(json, {}).status().code(), StatusCode::kInvalidArgument) << json;
  }
}

TEST(ChatTemplate, RefusesBadInput) {
  const auto jinja = ChatTemplate::from_jinja("{{ messages }}", {}, "x");
  const auto pieces = ChatTemplate::from_name("qwen", {});
  for (const auto* chat : {&jinja, &pieces}) {
    const auto code = [&](const ChatTemplateInputs& given) { return (*chat)->render(given).status().code(); };
    EXPECT_EQ(code(inputs(user("\xFF"))), chat == &jinja ? StatusCode::kInvalidArgument : StatusCode::kOk);
    EXPECT_EQ(code(inputs(Json("text"))), StatusCode::kInvalidArgument);
    Json deep = Json::array();
    for (int level = 0; level < 200; ++level) deep = Json::array({deep});
    EXPECT_EQ(code(inputs(deep)), StatusCode::kInvalidArgument);
    ChatTemplateInputs extra = inputs(user("Q"));
    extra.extra = Json("x");
    EXPECT_EQ(code(extra), StatusCode::kInvalidArgument);
  }
  ChatTemplateInputs twice = inputs(user("Q"));
  twice.extra["messages"] = 1;
  EXPECT_EQ(jinja->render(twice).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(pieces->render(inputs(Json::array({1}))).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(pieces->render(inputs(Json::array({Json::object({{"role", "king"}})}))).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, RefusesDeepArgumentsOfToolCalls) {
  // As text they pass the check of the messages; taking them apart must not use up the stack.
  const std::string deep = R"({"a":)" + std::string(1 << 20, '[') + std::string(1 << 20, ']') + "}";
  for (const char* name : {"qwen", "internlm2"}) {
    const auto chat = ChatTemplate::from_name(name, {});
    ChatTemplateInputs given = inputs(user("Q"));
    const Json call = Json::object({{"function", Json::object({{"name", "f"}, {"arguments", deep}})}});
    given.messages.push_back(
        Json::object({{"role", "assistant"}, {"content", ""}, {"tool_calls", Json::array({call})}}));
    const Status status = chat->render(given).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), "the arguments of a tool call are nested deeper than 64 levels");
  }
}

TEST(ChatTemplate, RefusesBadSources) {
  EXPECT_EQ(ChatTemplate::from_jinja("{% if %}", {}, "bad.jinja").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ChatTemplate::from_jinja("\xFF", {}, "bad.jinja").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ChatTemplate::from_jinja(std::string((1 << 20) + 1, 'x'), {}, "x").status().code(),
            StatusCode::kInvalidArgument);
  const Status status = ChatTemplate::from_jinja("{% if %}", {}, "bad.jinja").status();
  EXPECT_TRUE(status.message().starts_with("bad.jinja: ")) << status.message();
}

TEST(ChatTemplate, StopsTemplatesThatTakeTooMuch) {
  for (const char* source :
       {"{% for i in range(9999) %}{% for j in range(9999) %}{% set x = j %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}",
        "{{ 'a'.replace('', 'b' * 5000).replace('', 'c' * 5000).replace('', 'd' * 5000) }}"}) {
    const auto chat = ChatTemplate::from_jinja(source, {}, "x");
    ASSERT_TRUE(chat.ok()) << chat.status().message();
    EXPECT_EQ(chat->render({}).status().code(), StatusCode::kResourceExhausted) << source;
  }
}

TEST(ChatTemplate, AfterALimitTheNextRenderingIsAsEver) {
  const auto chat = ChatTemplate::from_jinja(
      "{% set ns = namespace(x=[1]) %}{% if messages %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}"
      "{% endfor %}{% endif %}{{ (ns.x ~ '')|length }}",
      {}, "x");
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(chat->render(inputs(user("Q"))).status().code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(render(chat, {}), "3");
  }
}

TEST(ChatTemplate, ContinuesTheLastMessage) {
  const auto chat = ChatTemplate::from_jinja(
      "{% for m in messages %}<{{ m.role }}>{{ m.content|trim }}</>{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}",
      {}, "x");
  ChatTemplateInputs given =
      inputs(Json::parse(R"([{"role":"user","content":"A"},{"role":"assistant","content":" A b "}])"));
  given.continue_final_message = true;
  EXPECT_EQ(render(chat, given), "<user>A</><assistant>A b");
  given.messages[1]["content"] = Json::array({{{"type", "text"}, {"text", "b"}}});
  const auto parts = ChatTemplate::from_jinja("{{ messages[1].content[0].text }}|end", {}, "x");
  EXPECT_EQ(render(parts, given), "b");
  given.messages[1]["content"] = nullptr;
  EXPECT_EQ(chat->render(given).status().code(), StatusCode::kInvalidArgument);
  given.messages[1].erase("content");
  EXPECT_EQ(chat->render(given).status().code(), StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, ServesManyThreadsAtOnce) {
  const auto chat = ChatTemplate::from_jinja("{% for m in messages %}{{ m.content }}{% endfor %}", {}, "x");
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t which = 0; which < wrong.size(); ++which) {
    threads.emplace_back([&, which] {
      const std::string text(which + 1, 'x');
      for (int round = 0; round < 200; ++round) wrong[which] += *chat->render(inputs(user(text))) == text ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

}  // namespace
}  // namespace lanner
