// Tools and thoughts of /v1/messages and /v1/responses: what chat templates get of them, what is refused, and what
// answers look like. The protocols' own clients try the rest (tests/server).

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/server_test_support.h"

namespace lanner::server {
namespace {

constexpr const char* kTemplate =
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if enable_thinking is defined %}[thinks: {{ enable_thinking }}]"
    "{% endif %}{% for m in messages %}<{{ m.role }}{% if m.tool_call_id %} {{ m.tool_call_id }}{% endif %}>"
    "{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}{{ m.content }}{% for c in m.tool_calls %}"
    "={{ c.id }}.{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{% endfor %}<assistant>";
constexpr const char* kFunction =
    R"({"type": "function", "name": "now", "parameters": {"type": "object"}, "strict": null})";
constexpr const char* kTool = R"({"name": "now", "description": "The time", "input_schema": {"type": "object"}})";
constexpr const char* kShownTool =
    R"([{"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object"}}}])";

struct Asked {
  explicit Asked(std::string_view route, const std::string& answer = "x", bool thoughts = false)
      : Asked(route, make_test_pipeline(says(answer), {}, kTemplate), thoughts) {}
  Asked(std::string_view route, TestPipeline made, bool thoughts)
      : path(route),
        engine(*made.engine),
        service(std::move(made.pipeline), {.tools = find_tool_syntax("qwen"), .thoughts = thoughts}) {}

  HttpReply post(const std::string& body) { return finish(service.handle(TestService::post_request(path, body))); }
  Json answer(const std::string& body) {
    const HttpReply reply = post(body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return Json::parse(reply.body, nullptr, false);
  }
  /// What the model is shown, without its BOS.
  std::string prompt(const std::string& body) {
    answer(body);
    std::string text;
    const std::vector<Request> requests = engine.requests();
    if (requests.empty()) return text;
    for (const std::int32_t id : requests.back().prompt) {
      if (id < 256) text += static_cast<char>(id);
    }
    return text;
  }
  std::string refusal(const std::string& body) {
    const HttpReply reply = post(body);
    EXPECT_EQ(reply.status, 400) << reply.body;
    return Json::parse(reply.body)["error"].value("message", "");
  }

  const std::string path;
  ScriptedEngine& engine;
  Service service;
};

std::string message(const std::string& list, const std::string& more = "") {
  return R"({"max_tokens": 64, "messages": )" + list + more + "}";
}
std::string hi(const std::string& more) { return message(R"([{"role": "user", "content": "Hi"}])", ", " + more); }
std::string input(const std::string& list, const std::string& more = "") { return R"({"input": )" + list + more + "}"; }

TEST(AnthropicTools, AreShownAsTemplatesKnowThem) {
  Asked asked("/v1/messages");
  EXPECT_EQ(asked.prompt(hi(std::string("\"tools\": [") + kTool + "]")),
            std::string(kShownTool) + "<user>Hi<assistant>");
  EXPECT_EQ(asked.prompt(hi(std::string("\"tools\": [") + kTool + R"(], "tool_choice": {"type": "none"})")),
            "<user>Hi<assistant>");
}

TEST(AnthropicTools, ResultsAreMessagesOfTheirOwn) {
  Asked asked("/v1/messages");
  const std::string talk = R"([{"role": "user", "content": "Hi"},
      {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "I look."}, {"type": "tool_use", "id": "t1", "name": "now", "input": {"a": "é"}},
        {"type": "tool_use", "id": "t2", "name": "now", "input": {}}]},
      {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "noon"},
                                                                 {"type": "text", "text": "sharp"}]},
        {"type": "tool_result", "tool_use_id": "t2", "is_error": true}, {"type": "text", "text": "So?"}]}])";
  EXPECT_EQ(asked.prompt(message(talk)),
            "<user>Hi<assistant>(Hm.)I look.=t1.now({\"a\": \"é\"})=t2.now({})<tool t1>noon\nsharp<tool t2><user>So?"
            "<assistant>");
}

TEST(AnthropicTools, AreRefusedByTheNamesTheyHaveThere) {
  Asked asked("/v1/messages");
  const auto tool = [](const std::string& json) { return hi("\"tools\": [" + json + "]"); };
  EXPECT_TRUE(asked.refusal(tool(R"({"name": "a b"})")).starts_with("tools[0].name: must be a string of up to 128"));
  EXPECT_EQ(asked.refusal(tool(R"({"name": "f", "input_schema": [1]})")),
            "tools[0].input_schema: must be a JSON schema of an object");
  EXPECT_EQ(asked.refusal(tool(R"({"type": "bash_20250124", "name": "bash"})")),
            "tools[0].type: must be \"custom\": there are no tools of the server's own");
  const auto choice = [](const std::string& json) {
    return hi(std::string("\"tools\": [") + kTool + "], \"tool_choice\": " + json);
  };
  EXPECT_EQ(asked.refusal(choice(R"({"type": "often"})")), "tool_choice.type: must be auto, any, tool or none");
  EXPECT_EQ(asked.refusal(choice(R"({"type": "tool", "name": "f"})")), "tool_choice: there is no tool 'f'");
  EXPECT_EQ(asked.refusal(choice(R"({"type": "tool"})")), R"(tool_choice: must be like {"type": "tool", "name": "…"})");
  EXPECT_EQ(asked.refusal(choice(R"({"type": "any", "disable_parallel_tool_use": 1})")),
            "tool_choice.disable_parallel_tool_use: must be true or false");
  EXPECT_EQ(asked.refusal(hi(R"("tool_choice": {"type": "any"})")), "tool_choice: only together with tools");
  const auto block = [](const std::string& role, const std::string& json) {
    return message(R"([{"role": ")" + role + R"(", "content": [)" + json + R"(]}, {"role": "user", "content": "x"}])");
  };
  EXPECT_EQ(asked.refusal(block("assistant", R"({"type": "tool_use", "name": "f", "input": {}})")),
            "messages[0].content[0].id: must be a string");
  EXPECT_EQ(asked.refusal(block("assistant", R"({"type": "tool_use", "id": "t", "name": "f", "input": "{}"})")),
            "messages[0].content[0].input: must be an object");
  EXPECT_EQ(asked.refusal(block("user", R"({"type": "tool_result", "content": "x"})")),
            "messages[0].content[0].tool_use_id: must be a string");
  EXPECT_EQ(asked.refusal(message(R"([{"role": "assistant", "content": [
                                       {"type": "tool_use", "id": "t", "name": "now", "input": {}}]}])")),
            "messages: calls of tools must be followed by their results");
  EXPECT_TRUE(asked.engine.requests().empty());
}

TEST(AnthropicThinking, IsAVariableOfTheTemplate) {
  Asked asked("/v1/messages", "Hm.</think>\n\nYes.", true);
  EXPECT_EQ(asked.prompt(hi(R"("thinking": {"type": "enabled", "budget_tokens": 1024})")),
            "[thinks: True]<user>Hi<assistant>");
  EXPECT_EQ(asked.prompt(hi(R"("thinking": {"type": "disabled"})")), "[thinks: False]<user>Hi<assistant>");
  EXPECT_EQ(asked.prompt(hi(R"("thinking": {"type": "adaptive"})")), "<user>Hi<assistant>");
  EXPECT_EQ(asked.prompt(hi(R"("thinking": {"type": "enabled"}, "enable_thinking": false)")),
            "[thinks: False]<user>Hi<assistant>");
  EXPECT_EQ(asked.refusal(hi(R"("thinking": {"type": "always"})")),
            "thinking.type: must be enabled, disabled or adaptive");
  EXPECT_EQ(Asked("/v1/messages").refusal(hi(R"("thinking": {"type": "enabled", "budget_tokens": 1024})")),
            "thinking: Please launch the api_server with --reasoning-parser if you want thoughts.");
}

TEST(AnthropicFormat, HoldsTheAnswerToASchema) {
  Asked asked("/v1/messages", "{}");
  asked.answer(hi(R"("output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}})"));
  const std::vector<Request> requests = asked.engine.requests();
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_NE(requests.front().grammar, nullptr);
  EXPECT_TRUE(asked.refusal(hi(R"("output_config": {"format": {"type": "json_schema", "schema": {"type": "sting"}}})"))
                  .starts_with("output_config.format: "));
  EXPECT_EQ(asked.refusal(hi(R"("output_config": {"format": {"type": "xml"}})")),
            "output_config.format.type: must be text, json_object or json_schema");
}

TEST(AnthropicSystem, LeavesOutWhatIsOfNoUseToTheModel) {
  Asked asked("/v1/messages");
  EXPECT_EQ(asked.prompt(hi(R"("system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=2;"},
                                          {"type": "text", "text": "Be kind."}, {"type": "text", "text": "Now."}])")),
            "<system>Be kind.\nNow.<user>Hi<assistant>");
}

TEST(ResponseTools, AreShownAsTemplatesKnowThem) {
  Asked asked("/v1/responses");
  EXPECT_EQ(
      asked.prompt(input("\"Hi\"", std::string(", \"tools\": [") + kFunction + "]")),
      R"([{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}]<user>Hi<assistant>)");
}

TEST(ResponseTools, CallsAndThoughtsJoinTheAssistantsMessage) {
  Asked asked("/v1/responses");
  const std::string talk = R"([{"role": "user", "content": "Hi"},
      {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
      {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
      {"type": "function_call", "call_id": "c1", "name": "now", "arguments": "{\"a\": 1}", "id": "fc_1"},
      {"type": "function_call", "call_id": "c2", "name": "now", "arguments": ""},
      {"type": "function_call_output", "call_id": "c1", "output": "noon"},
      {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "one"}]},
      {"type": "function_call", "call_id": "c3", "name": "now", "arguments": "{}"},
      {"type": "function_call_output", "call_id": "c3", "output": "two"},
      {"role": "assistant", "content": "Two."}, {"role": "assistant", "content": "Yes."},
      {"role": "user", "content": "So?"}])";
  EXPECT_EQ(asked.prompt(input(talk)),
            "<user>Hi<assistant>(Hm.)I look.=c1.now({\"a\": 1})=c2.now({})<tool c1>noon<tool c2>one"
            "<assistant>=c3.now({})<tool c3>two<assistant>Two.<assistant>Yes.<user>So?<assistant>");
}

TEST(ResponseTools, AreRefusedByTheNamesTheyHaveThere) {
  Asked asked("/v1/responses");
  const auto with = [](const std::string& more) { return input("\"Hi\"", ", " + more); };
  EXPECT_EQ(asked.refusal(with(R"("tools": [{"type": "web_search"}])")),
            "tools[0].type: must be \"function\": there are no other tools");
  EXPECT_EQ(asked.refusal(with(R"("tools": [{"type": "function", "name": "f", "parameters": "x"}])")),
            "tools[0].parameters: must be a JSON schema of an object");
  const auto choice = [&](const std::string& json) {
    return with(std::string("\"tools\": [") + kFunction + "], \"tool_choice\": " + json);
  };
  EXPECT_EQ(asked.refusal(choice(R"({"type": "function", "function": {"name": "now"}})")),
            R"(tool_choice: must be like {"type": "function", "name": "…"})");
  EXPECT_EQ(asked.refusal(choice(R"({"type": "allowed_tools", "mode": "auto", "tools": []})")),
            "tool_choice.tools: must name a tool");
  EXPECT_EQ(asked.refusal(choice(R"({"type": "allowed_tools"})")),
            "tool_choice: must have a mode, auto or required, and a list of tools");
  EXPECT_EQ(asked.refusal(input(R"([{"type": "function_call", "call_id": "c", "name": "f"}])")),
            "input[0].arguments: must be a string");
  EXPECT_EQ(asked.refusal(input(R"([{"type": "function_call_output", "output": "x"}])")),
            "input[0].call_id: must be a string");
  EXPECT_TRUE(asked.refusal(input(R"([{"type": "item_reference", "id": "x"}])")).starts_with("input[0].type: must be"));
  EXPECT_EQ(asked.refusal(with(R"("text": {"format": {"type": "json_schema", "name": "n"}})")),
            "text.format.schema: must be a JSON schema");
  EXPECT_TRUE(asked.refusal(with(R"("text": {"verbosity": "low"})")).starts_with("text.verbosity: "));
  EXPECT_TRUE(asked.engine.requests().empty());
}

TEST(ResponseTools, AreCalled) {
  Asked asked("/v1/responses", "<tool_call>{\"name\": \"now\"}</tool_call>");
  const Json answer = asked.answer(input("\"Hi\"", std::string(", \"tools\": [") + kFunction + "]"));
  ASSERT_EQ(answer["output"].size(), 1U);
  EXPECT_EQ(answer["output"][0]["type"], "function_call");
  EXPECT_EQ(answer["output"][0]["arguments"], "{}");
  EXPECT_EQ(answer["output"][0]["status"], "completed");
  EXPECT_EQ(answer["status"], "completed");
  EXPECT_EQ(answer["tools"], Json::array({Json::parse(kFunction)}));
}

}  // namespace
}  // namespace lanner::server
