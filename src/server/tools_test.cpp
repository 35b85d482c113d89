// Tools, thoughts and structured output of /v1/chat/completions, over an engine that follows a script. Scripted answers
// follow no grammar; what a request's grammar would let pass is asked of the grammar itself.

#include <gtest/gtest.h>

#include <ctime>
#include <string>
#include <vector>

#include "ops/sampling.h"
#include "server/server_test_support.h"

namespace lanner::server {
namespace {

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kTemplate =
    "{% if tools %}[{{ tools | length }}:{{ tools[0].function.name }}]{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls %}={{ c.function.name }}"
    "({{ c.function.arguments | tojson }}){% endfor %}{% endfor %}<assistant>";
constexpr const char* kTools =
    R"("tools": [{"type": "function", "function": {"name": "get_weather", "description": "Tells it", "parameters":
       {"type": "object", "properties": {"city": {"$ref": "#/$defs/city"}}, "required": ["city"],
        "additionalProperties": false, "$defs": {"city": {"type": "string"}}}}},
       {"type": "function", "function": {"name": "now"}}])";

std::string asks(const std::string& more) {
  return R"({"messages": [{"role": "user", "content": "Hi"}], )" + more + "}";
}

TestPipeline pipeline_with(const std::string& answer, const char* jinja = kTemplate) {
  return make_test_pipeline(says(answer), {}, jinja);
}

struct Asked {
  explicit Asked(const std::string& answer, const char* parser = "qwen", bool thoughts = false,
                 const char* jinja = kTemplate)
      : Asked(pipeline_with(answer, jinja), {.tools = find_tool_syntax(parser), .thoughts = thoughts}) {}
  Asked(TestPipeline made, ServiceOptions options)
      : engine(*made.engine), service(std::move(made.pipeline), std::move(options)) {}

  HttpReply post(const std::string& more) {
    return finish(service.handle(TestService::post_request(kChat, asks(more))));
  }
  Json choice(const std::string& more) {
    const HttpReply reply = post(more);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return Json::parse(reply.body)["choices"][0];
  }
  std::string refusal(const std::string& more) {
    const HttpReply reply = post(more);
    EXPECT_EQ(reply.status, 400) << reply.body;
    return Json::parse(reply.body).value("message", "");
  }
  std::vector<Json> deltas(const std::string& more) {
    const HttpReply reply = post(more + R"(, "stream": true)");
    std::vector<Json> list;
    std::string_view rest = reply.body;
    while (rest.starts_with("data: {")) {
      const std::size_t end = rest.find("\n\n");
      const Json event = Json::parse(rest.substr(6, end - 6));
      list.push_back(event["choices"][0]);
      rest.remove_prefix(end + 2);
    }
    EXPECT_EQ(rest, "data: [DONE]\n\n");
    return list;
  }
  std::string prompt() const {
    std::string text;
    const std::vector<Request> requests = engine.requests();
    for (const std::int32_t id : requests.back().prompt) {
      if (id < 256) text += static_cast<char>(id);
    }
    return text;
  }
  /// Whether the last request's grammar lets this answer pass, to its end.
  bool lets_pass(std::string_view text) const { return lets_pass_tokens(byte_tokens(text)); }
  bool lets_pass_tokens(const std::vector<std::int32_t>& tokens) const {
    const auto grammar = engine.requests().back().grammar;
    if (grammar == nullptr) return true;
    auto state = *grammar->begin();
    std::vector<std::uint32_t> words(ops::words_of_mask(512));
    bool ended = false;
    for (const std::int32_t token : tokens) {
      if (ended || !state->allowed(words).ok() || !ops::in_mask(words, token)) return false;
      const Result<bool> result = state->accept(token);
      if (!result.ok()) return false;
      ended = *result;
    }
    return ended || (state->allowed(words).ok() && ops::in_mask(words, kTestEos));
  }

  ScriptedEngine& engine;
  Service service;
};

TEST(StructuredOutput, HoldsAnswersToWhatIsAskedFor) {
  struct Format {
    const char* format;
    std::vector<const char*> pass;
    std::vector<const char*> stopped;
  };
  const std::vector<Format> formats{
      {R"({"type": "text"})", {"anything"}, {}},
      {R"({"type": "json_object"})", {"{}", "{\"a\": [1, null]}"}, {"[]", "", "{", "{} ", "x"}},
      {R"({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "description": "d", "schema":
           {"type": "object", "properties": {"a": {"type": "integer", "maximum": 12}}, "required": ["a"],
            "additionalProperties": false}}})",
       {"{\"a\": 12}", "{\n  \"a\":-3\n}"},
       {"{}", "{\"a\": 13}", "{\"a\": 1, \"b\": 2}"}},
      {R"({"type": "regex_schema", "regex_schema": "[0-9]{3}-[ab/]+"})", {"123-a/b"}, {"123-", "12-a", "123-c"}},
      {R"({"type": "grammar", "definition": "start: \"a\" (\"b\" | num)+\nnum: /[0-9]/"})", {"ab1b"}, {"a", "b", "aa"}},
      {R"({"type": "grammar", "syntax": "regex", "definition": "yes|no"})", {"yes", "no"}, {"maybe", "ye"}},
  };
  for (const Format& format : formats) {
    Asked asked("x", "");
    asked.choice(std::string(R"("response_format": )") + format.format);
    for (const char* text : format.pass) EXPECT_TRUE(asked.lets_pass(text)) << format.format << ": " << text;
    for (const char* text : format.stopped) EXPECT_FALSE(asked.lets_pass(text)) << format.format << ": " << text;
  }
}

TEST(StructuredOutput, SaysWithinASecondWhatIsWrong) {
  struct Wrong {
    const char* format;
    const char* message;
  };
  const std::vector<Wrong> all{
      {R"({})", "response_format.type: must be"},
      {R"({"type": "xml"})", "response_format.type: must be"},
      {R"({"type": "text", "more": 1})", "response_format.more: unknown field"},
      {R"({"type": "json_object", "schema": {}})", "response_format.schema: unknown field"},
      {R"({"type": "json_schema"})", "response_format.json_schema: must be an object"},
      {R"({"type": "json_schema", "json_schema": {"name": "x"}})", "response_format.json_schema.schema: must be"},
      {R"({"type": "json_schema", "json_schema": {"schema": {}, "strict": "yes"}})", "strict: must be true or false"},
      {R"({"type": "json_schema", "json_schema": {"schema": {"type": "sting"}}})", "response_format: "},
      {R"({"type": "json_schema", "json_schema": {"schema": {"type": "object", "minProperties": 3, "not": {}}}})",
       "not"},
      {R"({"type": "json_schema", "json_schema": {"schema": {"$ref": "http://example.com/s.json"}}})",
       "response_format: "},
      {R"({"type": "regex_schema", "regex_schema": "(("})", "response_format: "},
      {R"({"type": "regex_schema", "regex_schema": ""})", "response_format.regex_schema: must be"},
      {R"({"type": "grammar", "definition": "start: nobody"})", "nobody"},
      {R"({"type": "grammar", "syntax": "bnf", "definition": "x"})", "response_format.syntax: must be"},
  };
  for (const Wrong& wrong : all) {
    Asked asked("x");
    const std::clock_t begin = std::clock();  // of the processor: others may be busy
    const std::string message = asked.refusal(std::string(R"("response_format": )") + wrong.format);
    EXPECT_NE(message.find(wrong.message), std::string::npos) << message;
    EXPECT_LT(std::clock() - begin, CLOCKS_PER_SEC) << wrong.format;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
  Asked asked("x");
  EXPECT_EQ(asked.refusal(R"("response_format": {"type": "json_object"}, "min_new_tokens": 3)"),
            "min_new_tokens: not together with a grammar");
}

TEST(Tools, AreCalled) {
  Asked asked(
      "Let me see.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>");
  const Json choice = asked.choice(kTools);
  EXPECT_EQ(asked.prompt(), "[2:get_weather]<user>Hi<assistant>");
  EXPECT_EQ(asked.engine.requests().back().grammar, nullptr);
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], "Let me see.");
  const Json call = choice["message"]["tool_calls"][0];
  EXPECT_TRUE(call["id"].get<std::string>().starts_with("chatcmpl-tool-"));
  EXPECT_EQ(call["type"], "function");
  EXPECT_EQ(call["function"], Json::parse(R"({"name": "get_weather", "arguments": "{\"city\":\"Paris\"}"})"));
}

TEST(Tools, AreCalledInAStream) {
  Asked asked(
      "Ok <tool_call>{\"name\": \"now\"}</tool_call>\n<tool_call>{\"name\": \"get_weather\", \"arguments\": "
      "{\"city\": \"Rom\"}}</tool_call>");
  std::string content;
  std::vector<std::string> names;
  std::vector<std::string> arguments;
  const auto deltas = asked.deltas(kTools);
  for (const Json& choice : deltas) {
    content += choice["delta"].value("content", "");
    if (!choice["delta"].contains("tool_calls")) continue;
    const Json& call = choice["delta"]["tool_calls"][0];
    const auto index = call["index"].get<std::size_t>();
    if (call.contains("id")) {
      EXPECT_EQ(index, names.size());
      EXPECT_EQ(call["type"], "function");
      names.push_back(call["function"]["name"]);
      arguments.emplace_back();
    } else {
      EXPECT_FALSE(call["function"].contains("name"));
    }
    arguments.at(index) += call["function"]["arguments"].get<std::string>();
  }
  EXPECT_EQ(content, "Ok");
  EXPECT_EQ(names, (std::vector<std::string>{"now", "get_weather"}));
  EXPECT_EQ(arguments, (std::vector<std::string>{"{}", "{\"city\":\"Rom\"}"}));
  EXPECT_EQ(deltas.back()["finish_reason"], "tool_calls");
  EXPECT_EQ(deltas.back()["delta"], Json::object());
}

TEST(Tools, WithoutACallTheAnswerIsContent) {
  Asked asked("<tool_call>{\"name\": \"rm\"}</tool_call> <tool_c");
  const Json choice = asked.choice(kTools);
  EXPECT_EQ(choice["message"]["content"], "<tool_call>{\"name\": \"rm\"}</tool_call> <tool_c");
  EXPECT_FALSE(choice["message"].contains("tool_calls"));
  EXPECT_EQ(choice["finish_reason"], "stop");
  std::string content;
  for (const Json& part : asked.deltas(kTools)) content += part["delta"].value("content", "");
  EXPECT_EQ(content, "<tool_call>{\"name\": \"rm\"}</tool_call> <tool_c");
}

TEST(Tools, MayBeDemandedOfEveryFamily) {
  struct Family {
    const char* parser;
    std::string one;
    std::string two;
  };
  const std::string weather = R"({"name": "get_weather", "arguments": {"city": "Paris"}})";
  const std::string weather_parameters = R"({"name": "get_weather", "parameters": {"city": "Paris"}})";
  const std::string now = R"({"name": "now", "arguments": {}})";
  const std::string tagged = "<tool_call>\n" + weather + "\n</tool_call>";
  const std::string plugin = "<|action_start|><|plugin|>\n" + weather_parameters + "\n<|action_end|>";
  const std::vector<Family> families{
      {"hermes", tagged, tagged + "\n<tool_call>\n" + now + "\n</tool_call>"},
      {"internlm", plugin, plugin + "\n" + plugin},
      {"llama3", weather_parameters, weather_parameters + "; " + weather_parameters},
      {"mistral", "[TOOL_CALLS][" + weather + "]", "[TOOL_CALLS][" + weather + ", " + now + "]"},
  };
  for (const Family& family : families) {
    for (const std::string& text : {family.one, family.two}) {
      Asked asked(text, family.parser);
      const Json choice = asked.choice(std::string(kTools) + R"(, "tool_choice": "required")");
      EXPECT_TRUE(asked.lets_pass(text)) << family.parser << ": " << text;
      EXPECT_FALSE(asked.lets_pass("Hello"));
      EXPECT_FALSE(asked.lets_pass(""));
      EXPECT_EQ(choice["message"]["tool_calls"].size(), text == family.one ? 1U : 2U) << choice;
      EXPECT_EQ(choice["message"]["content"], nullptr);
      EXPECT_EQ(choice["finish_reason"], "tool_calls");
    }
    Asked asked(family.one, family.parser);
    asked.choice(std::string(kTools) + R"(, "tool_choice": "required", "parallel_tool_calls": false)");
    EXPECT_TRUE(asked.lets_pass(family.one)) << family.parser;
    EXPECT_FALSE(asked.lets_pass(family.two)) << family.parser;
    asked.choice(std::string(kTools) + R"(, "tool_choice": {"type": "function", "function": {"name": "now"}})");
    EXPECT_FALSE(asked.lets_pass(family.one)) << family.parser;
  }
}

TEST(Tools, ArgumentsFollowTheSchemaOfTheFunction) {
  Asked asked("x");
  asked.choice(std::string(kTools) + R"(, "tool_choice": {"type": "function", "function": {"name": "get_weather"}})");
  const auto call = [](const std::string& arguments) {
    return "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": " + arguments + "}\n</tool_call>";
  };
  EXPECT_TRUE(asked.lets_pass(call(R"({"city": "Ulm"})")));
  EXPECT_FALSE(asked.lets_pass(call(R"({"city": 3})")));
  EXPECT_FALSE(asked.lets_pass(call("{}")));
  EXPECT_FALSE(asked.lets_pass(call(R"({"city": "Ulm", "more": 1})")));
}

// --- strict tools, of the model's own accord ------------------------------------------------------------------------

constexpr const char* kStrictTools =
    R"("tools": [{"type": "function", "function": {"name": "get_weather", "strict": true, "parameters":
       {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
        "additionalProperties": false}}}, {"type": "function", "function": {"name": "now"}}])";

TEST(StrictTools, AreFreeUntilTheModelBeginsACall) {
  struct Family {
    const char* parser;
    std::string begin;
    std::string end;
    const char* key;
  };
  const std::vector<Family> families{
      {"hermes", "<tool_call>\n", "\n</tool_call>", "arguments"},
      {"internlm", "<|action_start|><|plugin|>\n", "\n<|action_end|>", "parameters"},
      {"mistral", "[TOOL_CALLS][", "]", "arguments"},
      {"llama3", "", "", "parameters"},
      {"llama3", "<|python_tag|>", "", "parameters"},
  };
  for (const Family& family : families) {
    Asked asked("x", family.parser);
    asked.choice(kStrictTools);
    const auto call = [&](const std::string& name, const std::string& arguments) {
      std::string text = family.begin;
      text.append(R"({"name": ")").append(name).append(R"(", ")").append(family.key);
      return text.append(R"(": )").append(arguments).append("}").append(family.end);
    };
    const std::string paris = call("get_weather", R"({"city": "Paris"})");
    EXPECT_TRUE(asked.lets_pass("")) << family.parser;
    EXPECT_TRUE(asked.lets_pass("It is noon.\n\n[1, 2] <tool_c")) << family.parser;
    EXPECT_TRUE(asked.lets_pass(paris)) << family.parser;
    EXPECT_TRUE(asked.lets_pass(call("now", R"({"what": ["ever"]})"))) << family.parser;
    EXPECT_FALSE(asked.lets_pass(call("get_weather", "{}"))) << family.parser;
    EXPECT_FALSE(asked.lets_pass(call("get_weather", R"({"city": 3})"))) << family.parser;
    EXPECT_FALSE(asked.lets_pass(call("nobody", "{}"))) << family.parser;
    if (family.begin.empty()) continue;
    EXPECT_TRUE(asked.lets_pass("Let me see.\n" + paris)) << family.parser;
    EXPECT_FALSE(asked.lets_pass("Let me see.\n" + call("get_weather", "{}"))) << family.parser;
    EXPECT_FALSE(asked.lets_pass(family.begin)) << family.parser;
  }
}

TEST(StrictTools, MayBeCalledTwiceAndSpokenOf) {
  Asked asked("x");
  asked.choice(kStrictTools);
  const std::string paris =
      "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>";
  const std::string nowhere = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {}}\n</tool_call>";
  EXPECT_TRUE(asked.lets_pass(paris + "\n" + paris + "\nThat was all."));
  EXPECT_FALSE(asked.lets_pass(paris + "\n" + nowhere));
}

TEST(StrictTools, BesideThoughtsThatAreText) {
  Asked asked("x", "qwen", true);
  asked.choice(kStrictTools);
  const std::string thoughts = "<think>\nA <tool_call> now?\n</think>\n\n";
  const std::string now = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
  EXPECT_TRUE(asked.lets_pass(thoughts + "No."));
  EXPECT_TRUE(asked.lets_pass(thoughts + now));
  EXPECT_TRUE(asked.lets_pass(now));
  EXPECT_FALSE(asked.lets_pass(thoughts + "<tool_call>\nnow"));
  EXPECT_FALSE(asked.lets_pass("<tool_call>\nnow"));
  Asked begun("x", "qwen", true, "{% if tools %}[tools]{% endif %}{{ messages[0].content }}<think>");
  begun.choice(kStrictTools);
  EXPECT_TRUE(begun.lets_pass("A <tool_call>?</think>\n\nNo."));
  EXPECT_TRUE(begun.lets_pass("Well.</think>\n\n" + now));
  EXPECT_FALSE(begun.lets_pass("Well.</think>\n\n<tool_call>\nnow"));
}

TEST(StrictTools, WithMarksThatAreTokens) {
  const ToolSyntax syntax{.name = "special", .begin = "<|im_end|>", .end = "<bos>"};
  for (const bool thoughts : {false, true}) {
    Asked asked(pipeline_with("x"), {.tools = &syntax, .thoughts = thoughts});
    asked.choice(kStrictTools);
    const auto tokens = [](const std::string& text, const std::string& arguments) {
      std::vector<std::int32_t> ids = byte_tokens(text);
      ids.push_back(kTestImEnd);
      const auto call = byte_tokens(R"({"name": "get_weather", "arguments": )" + arguments + "}");
      ids.insert(ids.end(), call.begin(), call.end());
      ids.push_back(kTestBos);
      return ids;
    };
    EXPECT_TRUE(asked.lets_pass("Hello <|im_end|>")) << thoughts;
    EXPECT_TRUE(asked.lets_pass_tokens(tokens("", R"({"city": "Ulm"})"))) << thoughts;
    EXPECT_TRUE(asked.lets_pass_tokens(tokens("Well. ", R"({"city": "Ulm"})"))) << thoughts;
    EXPECT_FALSE(asked.lets_pass_tokens(tokens("Well. ", "{}"))) << thoughts;
  }
}

TEST(StrictTools, AreRefusedWhereTheSchemaCannotBeFollowed) {
  Asked asked("x");
  const auto with = [](const char* strict) {
    return std::string(R"("tools": [{"type": "function", "function": {"name": "f", "strict": )") + strict +
           R"(, "parameters": {"type": "object", "minProperties": 3, "not": {}}}}])";
  };
  EXPECT_NE(asked.refusal(with("true")).find("tools: "), std::string::npos);
  asked.choice(with("false"));
  EXPECT_EQ(asked.engine.requests().back().grammar, nullptr);
}

TEST(Tools, StandBesideAResponseFormat) {
  Asked asked("x");
  asked.choice(std::string(kTools) + R"(, "response_format": {"type": "json_object"})");
  EXPECT_TRUE(asked.lets_pass(R"({"a": 1})"));
  EXPECT_TRUE(asked.lets_pass("<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"));
  EXPECT_FALSE(asked.lets_pass("Hello"));
  asked.choice(std::string(kTools) + R"(, "response_format": {"type": "regex_schema", "regex_schema": "a/b\\/c"})");
  EXPECT_TRUE(asked.lets_pass("a/b/c"));
}

TEST(Tools, MayBeNarrowed) {
  Asked asked("<tool_call>{\"name\": \"get_weather\"}</tool_call>");
  const std::string only_now = R"(, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools":
                                   [{"type": "function", "function": {"name": "now"}}]}})";
  EXPECT_EQ(asked.choice(kTools + only_now)["message"]["content"],
            "<tool_call>{\"name\": \"get_weather\"}</tool_call>");
  EXPECT_EQ(asked.prompt(), "[2:get_weather]<user>Hi<assistant>");
  const Json none = asked.choice(std::string(kTools) + R"(, "tool_choice": "none")");
  EXPECT_FALSE(none["message"].contains("tool_calls"));
  EXPECT_EQ(asked.prompt(), "<user>Hi<assistant>");
}

TEST(Tools, StandInTheHistory) {
  Asked asked("x");
  const HttpReply reply = finish(asked.service.handle(TestService::post_request(
      kChat, R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null, "tool_calls":
             [{"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{\"a\": 1}"}}]},
             {"role": "tool", "tool_call_id": "c1", "content": "noon"}]})")));
  EXPECT_EQ(reply.status, 200) << reply.body;
  // The arguments are an object there, though the protocol has them as text: templates write them as JSON.
  EXPECT_EQ(asked.prompt(), R"(<user>Hi<assistant>=now({"a": 1})<tool>noon<assistant>)");
}

TEST(Tools, AreCheckedBeforeAnythingIsDone) {
  Asked asked("x");
  const auto tool = [](const std::string& function) {
    return R"("tools": [{"type": "function", "function": )" + function + "}]";
  };
  EXPECT_EQ(asked.refusal(R"("tools": [{}])"), "tools[0].type: must be \"function\": there are no other tools");
  EXPECT_EQ(asked.refusal(R"("tools": [3])"), "tools[0]: must be an object");
  EXPECT_NE(asked.refusal(tool(R"({"name": "a b"})")).find("tools[0].function.name: "), std::string::npos);
  EXPECT_EQ(asked.refusal(tool(R"({"name": "f", "parameters": [1]})")),
            "tools[0].function.parameters: must be a JSON schema of an object");
  EXPECT_EQ(asked.refusal(R"("tool_choice": "required")"), "tool_choice: only together with tools");
  EXPECT_EQ(asked.refusal(std::string(kTools) + R"(, "tool_choice": "often")"),
            "tool_choice: must be none, auto, required, or name a function");
  EXPECT_EQ(asked.refusal(std::string(kTools) + R"(, "tool_choice": {"type": "function", "function": {"name": "g"}})"),
            "tool_choice: there is no tool 'g'");
  EXPECT_NE(
      asked.refusal(tool(R"({"name": "f", "parameters": {"type": "nothing"}})") + R"(, "tool_choice": "required")")
          .find("tools: "),
      std::string::npos);
  EXPECT_EQ(Asked("x", "nobody").refusal(kTools),
            "tools: Please launch the api_server with --tool-call-parser if you want to use tools.");
  EXPECT_EQ(Asked("x", "qwen", false, "{{ messages[0].content }}").refusal(kTools),
            "tools: the model's chat template has no form for tools (--chat-template sets another one)");
  const HttpReply reply = finish(asked.service.handle(TestService::post_request(
      kChat, R"({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": 3}}]}]})")));
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(asked.engine.requests().size(), 0U);
}

TEST(Thoughts, AreToldApart) {
  Asked asked("<think>\nHm.\n</think>\n\nParis.", "qwen", true);
  const Json message = asked.choice(R"("n": 1)")["message"];
  EXPECT_EQ(message["content"], "Paris.");
  EXPECT_EQ(message["reasoning_content"], "Hm.");
  std::string content;
  std::string thoughts;
  for (const Json& choice : asked.deltas(R"("n": 1)")) {
    content += choice["delta"].value("content", "");
    thoughts += choice["delta"].value("reasoning_content", "");
  }
  EXPECT_EQ(content, "Paris.");
  EXPECT_EQ(thoughts, "Hm.");
}

TEST(Thoughts, BeginWhereThePromptSays) {
  const std::string ask = R"("n": 1)";
  Asked begun("Hm.</think>Paris.", "qwen", true, "{{ messages[0].content }}<think>\n");
  EXPECT_EQ(begun.choice(ask)["message"]["reasoning_content"], "Hm.");
  Asked over("Paris.", "qwen", true, "{{ messages[0].content }}<think>\n\n</think>\n\n");
  EXPECT_EQ(over.choice(ask)["message"]["content"], "Paris.");
  EXPECT_FALSE(over.choice(ask)["message"].contains("reasoning_content"));
}

TEST(Thoughts, ComeBeforeWhatTheAnswerIsHeldTo) {
  const std::string ask = R"("response_format": {"type": "json_object"})";
  Asked free("x", "qwen", true);
  free.choice(ask);
  EXPECT_TRUE(free.lets_pass("<think>\nWhat { now?\n</think>\n\n{\"a\": 1}"));
  EXPECT_TRUE(free.lets_pass("{\"a\": 1}"));
  EXPECT_FALSE(free.lets_pass("<think>\nWhat now?\n</think>\n\nyes"));
  EXPECT_FALSE(free.lets_pass("yes"));
  Asked begun("x", "qwen", true, "{{ messages[0].content }}<think>");
  begun.choice(ask);
  EXPECT_TRUE(begun.lets_pass("So </thin</think>{}"));
  EXPECT_FALSE(begun.lets_pass("{}"));
}

}  // namespace
}  // namespace lanner::server
