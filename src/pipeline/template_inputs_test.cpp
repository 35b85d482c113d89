#include "pipeline/template_inputs.h"

#include <gtest/gtest.h>

#include "pipeline/pipeline_test_support.h"

namespace lanner {
namespace {

using Json = nlohmann::ordered_json;

GenerationRequest request_of(std::vector<Message> messages) {
  GenerationRequest request;
  request.messages = std::move(messages);
  return request;
}

std::string error_of(const GenerationRequest& request) { return template_inputs(request).status().message(); }

TEST(TemplateInputs, MessagesKeepWhatElseTheyHave) {
  GenerationRequest request = request_of(
      {{"user", "Q"},
       {"assistant", "", R"({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}], "content": null})"},
       {"tool", "42", R"({"tool_call_id": "c1", "name": "f"})"},
       {"user", "", R"({"content": [{"type": "text", "text": "x"}, {"type": "image", "image": "a.png"}]})"}});
  request.tools = R"([{"type": "function", "function": {"name": "f"}}])";
  request.documents = R"([{"title": "t", "text": "d"}])";
  request.chat_template_kwargs = R"({"enable_thinking": false, "add_generation_prompt": false})";
  const auto inputs = template_inputs(request);
  ASSERT_TRUE(inputs.ok()) << inputs.status().message();
  EXPECT_EQ(inputs->messages, Json::parse(R"([
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
    {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "f"},
    {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image", "image": "a.png"}]}])"));
  EXPECT_EQ(inputs->tools, Json::parse(request.tools));
  EXPECT_EQ(inputs->documents, Json::parse(request.documents));
  EXPECT_EQ(inputs->extra, Json::parse(R"({"enable_thinking": false})"));
  EXPECT_FALSE(inputs->add_generation_prompt);
  EXPECT_FALSE(inputs->continue_final_message);
}

TEST(TemplateInputs, EmptyTextsAreNothing) {
  const auto inputs = template_inputs(request_of({{"user", "Q"}}));
  ASSERT_TRUE(inputs.ok());
  EXPECT_TRUE(inputs->tools.is_null());
  EXPECT_TRUE(inputs->documents.is_null());
  EXPECT_TRUE(inputs->extra.empty());
  EXPECT_TRUE(inputs->add_generation_prompt);
}

TEST(TemplateInputs, RefusalsNameTheField) {
  GenerationRequest request = request_of({{"user", "Q"}});
  request.tools = "{}";
  EXPECT_EQ(error_of(request), "the list of tools is not a list");
  request.tools = "[";
  EXPECT_EQ(error_of(request), "the list of tools is not valid JSON");
  request.tools = "[\"\xFF\"]";
  EXPECT_EQ(error_of(request), "the list of tools is not UTF-8: byte 2 is wrong");
  request.tools = std::string(300, '[') + std::string(300, ']');
  EXPECT_EQ(error_of(request), "the list of tools is nested deeper than 256 levels");
  request.tools.clear();
  request.chat_template_kwargs = "[]";
  EXPECT_EQ(error_of(request), "chat_template_kwargs is not an object");
  request.chat_template_kwargs = R"({"add_generation_prompt": 1})";
  EXPECT_EQ(error_of(request), "\"add_generation_prompt\" is neither true nor false");
  EXPECT_EQ(error_of(request_of({{"user", "Q", "[]"}})), "more of message 1 is not an object");
  EXPECT_EQ(error_of(request_of({{"user", "Q", R"({"role": "x"})"}})), "message 1 has its role twice");
  EXPECT_EQ(error_of(request_of({{"user", "Q", R"({"content": []})"}})), "message 1 has its content twice");
}

TEST(TemplateInputs, ReachTheTemplateThroughThePipeline) {
  TestPipeline test = make_test_pipeline(says("x"), {},
                                         "{{ tools|tojson }}{{ messages[0].name }}{{ enable_thinking }}"
                                         "{{ add_generation_prompt }}{{ documents[0].t }}");
  GenerationRequest request = request_of({{"user", "Q", R"({"name": "n"})"}});
  request.tools = R"([{"b": 1, "a": 2.0}])";
  request.documents = R"([{"t": "d"}])";
  request.chat_template_kwargs = R"({"enable_thinking": true, "add_generation_prompt": false})";
  const auto prompt = test.pipeline->render(request);
  ASSERT_TRUE(prompt.ok()) << prompt.status().message();
  EXPECT_EQ(*prompt, R"([{"b": 1, "a": 2.0}]nTrueFalsed)");
  request.chat_template_kwargs = "no";
  EXPECT_EQ(test.pipeline->generate(request).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lanner
