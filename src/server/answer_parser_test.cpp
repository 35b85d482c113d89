// Thoughts and calls of tools in scripted answers, which are cut at every byte: however they come, they say the same.

#include "server/answer_parser.h"

#include <gtest/gtest.h>

namespace lanner::server {
namespace {

using Thoughts = AnswerReading::Thoughts;

AnswerReading reading_of(const char* syntax, Thoughts thoughts = Thoughts::kNone) {
  AnswerReading reading{.thoughts = thoughts};
  if (syntax != nullptr) {
    reading.tools = find_tool_syntax(syntax);
    EXPECT_NE(reading.tools, nullptr) << syntax;
    reading.tool_names = {"get_weather", "add", "f"};
  }
  return reading;
}

/// "content|thoughts|name(arguments) name(arguments)"
std::string told(const AnswerParts& parts) {
  std::string text = parts.content + "|" + parts.reasoning + "|";
  for (std::size_t i = 0; i < parts.calls.size(); ++i) {
    text += (i > 0 ? " " : "") + parts.calls[i].name + "(" + parts.calls[i].arguments + ")";
  }
  return text;
}

std::string read(const AnswerReading& reading, const std::vector<std::string_view>& pieces) {
  AnswerParser parser(reading);
  AnswerParts parts;
  for (const std::string_view piece : pieces) parser.push(piece, parts);
  parser.finish(parts);
  return told(parts);
}

/// Whole, cut at every byte into two, and a byte at a time.
void expect_told(const AnswerReading& reading, std::string_view text, const std::string& expected) {
  EXPECT_EQ(read(reading, {text}), expected) << text;
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(read(reading, {text.substr(0, cut), text.substr(cut)}), expected) << text << ", cut at " << cut;
  }
  std::vector<std::string_view> bytes;
  for (std::size_t i = 0; i < text.size(); ++i) bytes.push_back(text.substr(i, 1));
  EXPECT_EQ(read(reading, bytes), expected) << text << ", byte by byte";
}

struct Case {
  const char* syntax;
  const char* text;
  const char* told;
};

TEST(ToolCalls, AreFound) {
  const std::vector<Case> cases{
      {"qwen", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
       "||get_weather({\"city\":\"Paris\"})"},
      {"hermes", "I look.\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n", "I look.||f({})"},
      {"qwen3",
       "<tool_call>\n{\"name\": \"f\"}\n</tool_call>\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": [1, "
       "{\"b\": "
       "2.5}]}}\n</tool_call>",
       "||f({}) add({\"a\":[1,{\"b\":2.5}]})"},
      {"qwen2d5", "a <tool_call>{\"name\":\"f\"}</tool_call> b", "a b||f({})"},
      {"qwen", "<tool_call>{\"name\":\"f\",\"arguments\":{\"s\":\"</tool_call> \\\" } \\\\\"}}</tool_call>",
       "||f({\"s\":\"</tool_call> \\\" } \\\\\"})"},
      {"qwen", "<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1}\"}</tool_call>", "||f({\"a\":1})"},
      {"qwen", "<tool_call>{\"name\":\"f\",\"parameters\":{\"日\":\"本\"}}</tool_call>", "||f({\"日\":\"本\"})"},
      {"qwen", "<tool_call>{\"name\":\"f\"}", "||f({})"},  // the answer ends in place of the mark
      {"internlm", "Yes <|action_start|><|plugin|>\n{\"name\": \"add\", \"parameters\": {\"a\": 1}}<|action_end|>\n",
       "Yes||add({\"a\":1})"},
      {"llama3", "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"x\": null}}", "||f({\"x\":null})"},
      {"llama3", "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"add\", \"parameters\": {\"a\": 2}}",
       "||f({}) add({\"a\":2})"},
      {"llama3", "\n {\"name\": \"f\"}\n", "||f({})"},
      {"mistral", "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"add\", \"arguments\": {}}]",
       "||f({\"a\":1}) add({})"},
      {"mistral", "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Rome\"}[TOOL_CALLS]f{\"a\":1}",
       "||get_weather({\"city\":\"Rome\"}) f({\"a\":1})"},
  };
  for (const Case& one : cases) expect_told(reading_of(one.syntax), one.text, one.told);
}

TEST(ToolCalls, WhatIsNoneIsContent) {
  const std::vector<Case> cases{
      {"qwen", "no call at all <tool", "no call at all <tool||"},
      {"qwen", "  \n", "  \n||"},
      {"qwen", "a < b <tool_ca <t <tool_call", "a < b <tool_ca <t <tool_call||"},
      {"qwen", "<tool_call>oops</tool_call>", "<tool_call>oops</tool_call>||"},
      {"qwen", "<tool_call>{\"name\":\"f\",}</tool_call>", "<tool_call>{\"name\":\"f\",}</tool_call>||"},
      {"qwen", "<tool_call>{\"name\":\"f\"}}</tool_call>", "<tool_call>{\"name\":\"f\"}}</tool_call>||"},
      {"qwen", "<tool_call>{\"name\":\"rm\",\"arguments\":{}}</tool_call>",
       "<tool_call>{\"name\":\"rm\",\"arguments\":{}}</tool_call>||"},
      {"qwen", "<tool_call>{\"name\":\"f\",\"arguments\":[1]}</tool_call>",
       "<tool_call>{\"name\":\"f\",\"arguments\":[1]}</tool_call>||"},
      {"qwen", "<tool_call>{\"name\":\"f\",\"arguments\":\"no\"}</tool_call>",
       "<tool_call>{\"name\":\"f\",\"arguments\":\"no\"}</tool_call>||"},
      {"qwen", "<tool_call>{\"name\":3}</tool_call>", "<tool_call>{\"name\":3}</tool_call>||"},
      {"qwen",
       "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":", "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":||"},
      {"qwen", "<tool_call>{\"name\":\"f\"} and more", "<tool_call>{\"name\":\"f\"} and more||"},
      {"qwen", "<tool_call>{\"name\":\"f\"}</tool", "<tool_call>{\"name\":\"f\"}</tool||"},
      // A wrong one does not hide a right one.
      {"qwen", "<tool_call>oops <tool_call>{\"name\":\"f\"}</tool_call>", "<tool_call>oops||f({})"},
      {"qwen", "<tool_call>{<tool_call>{\"name\":\"f\"}</tool_call>", "<tool_call>{||f({})"},
      {"internlm", "<|action_start|><|interpreter|>\nprint(1)<|action_end|>",
       "<|action_start|><|interpreter|>\nprint(1)<|action_end|>||"},
      {"llama3", "{\"answer\": 42}", "{\"answer\": 42}||"},
      {"llama3", "{no json}", "{no json}||"},
      {"llama3", "I say {\"name\": \"f\"}", "I say {\"name\": \"f\"}||"},
      {"llama3", "{\"name\": \"f\"", "{\"name\": \"f\"||"},
      {"mistral", "[TOOL_CALLS] []", "[TOOL_CALLS] []||"},
      {"mistral", "[TOOL_CALLS] [{\"name\": \"f\"}, {\"name\": \"rm\"}]",
       "[TOOL_CALLS] [{\"name\": \"f\"}, {\"name\": \"rm\"}]||"},
      {"mistral", "[TOOL_CALLS] well, \"no\" {}", "[TOOL_CALLS] well, \"no\" {}||"},
      {"mistral", "[TOOL_CALLS]f[ARGS]", "[TOOL_CALLS]f[ARGS]||"},
      {"mistral", "[TOOL_CALLS]rm[ARGS]{}", "[TOOL_CALLS]rm[ARGS]{}||"},
      {"mistral", "an [1, 2] list", "an [1, 2] list||"},
  };
  for (const Case& one : cases) expect_told(reading_of(one.syntax), one.text, one.told);
}

TEST(ToolCalls, MayBeHeldToOne) {
  AnswerReading reading = reading_of("qwen");
  reading.one_call = true;
  expect_told(reading, "<tool_call>{\"name\":\"f\"}</tool_call><tool_call>{\"name\":\"add\"}</tool_call>", "||f({})");
}

TEST(ToolCalls, AreToldWhenTheyAreComplete) {
  AnswerParser parser(reading_of("qwen"));
  AnswerParts parts;
  parser.push("Hm <tool_call>{\"name\":\"f\"}", parts);
  EXPECT_EQ(told(parts), "Hm||");
  parser.push("</tool_call>", parts);
  EXPECT_EQ(told(parts), "Hm||f({})");
}

TEST(Thoughts, AreApartFromTheAnswer) {
  struct ThoughtCase {
    Thoughts thoughts;
    const char* text;
    const char* told;
  };
  const std::vector<ThoughtCase> cases{
      {Thoughts::kMayBegin, "<think>\nHm, well.\n\nYes.\n</think>\n\nParis.", "Paris.|Hm, well.\n\nYes.|"},
      {Thoughts::kMayBegin, "\n<think></think>Paris.\n", "Paris.\n||"},
      {Thoughts::kMayBegin, "Paris. <think>no</think>", "Paris. <think>no</think>||"},
      {Thoughts::kMayBegin, " <thin", " <thin||"},
      {Thoughts::kMayBegin, "<think>never ends", "|never ends|"},
      {Thoughts::kMayBegin, "<think>a </thin b </think> c </think>", "c </think>|a </thin b|"},
      {Thoughts::kBegun, "Hm.\n</think>\n\nParis.", "Paris.|Hm.|"},
      {Thoughts::kBegun, "\n<think>\nHm.</think>Paris.", "Paris.|Hm.|"},
      {Thoughts::kBegun, "only thoughts </", "|only thoughts </|"},
      {Thoughts::kBegun, "</think>", "||"},
      {Thoughts::kNone, "<think>a</think>b", "<think>a</think>b||"},
  };
  for (const ThoughtCase& one : cases) expect_told(reading_of(nullptr, one.thoughts), one.text, one.told);
}

TEST(Thoughts, StandInFrontOfCalls) {
  expect_told(reading_of("qwen3", Thoughts::kMayBegin),
              "<think>\nI should <tool_call>.\n</think>\n\n<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
              "|I should <tool_call>.|f({})");
}

TEST(ToolSyntax, IsFoundByName) {
  for (const char* name : {"internlm", "qwen", "qwen2d5", "qwen3", "hermes", "llama3", "mistral"}) {
    EXPECT_STREQ(find_tool_syntax(name)->name, name);
    EXPECT_NE(tool_syntax_names().find(name), std::string::npos);
  }
  EXPECT_EQ(find_tool_syntax("nobody"), nullptr);
  EXPECT_TRUE(is_reasoning_parser("deepseek-r1"));
  EXPECT_FALSE(is_reasoning_parser(""));
}

}  // namespace
}  // namespace lanner::server
