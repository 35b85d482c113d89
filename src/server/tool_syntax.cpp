#include "server/tool_syntax.h"

#include <algorithm>
#include <array>

namespace lanner::server {
namespace {

constexpr ToolSyntax kToolCallTags{.name = "qwen", .begin = "<tool_call>", .end = "</tool_call>", .line_end = "\n"};

constexpr ToolSyntax named(ToolSyntax syntax, const char* name) {
  syntax.name = name;
  return syntax;
}

constexpr ToolSyntax kPlugin{.name = "internlm",
                             .begin = "<|action_start|><|plugin|>",
                             .end = "<|action_end|>",
                             .arguments_key = "parameters",
                             .line_end = "\n"};

constexpr std::array kSyntaxes{
    kPlugin,
    named(kPlugin, "intern-s1"),
    kToolCallTags,
    named(kToolCallTags, "qwen2d5"),
    named(kToolCallTags, "qwen3"),
    named(kToolCallTags, "hermes"),
    ToolSyntax{.name = "llama3", .begin = "<|python_tag|>", .arguments_key = "parameters", .bare = true},
    ToolSyntax{.name = "mistral", .begin = "[TOOL_CALLS]", .list = true},
};

// What others call it.
constexpr std::array<std::string_view, 5> kReasoningParsers{"default", "qwen-qwq", "intern-s1", "deepseek-r1",
                                                            "deepseek-v3"};

template <typename List, typename Name>
std::string joined(const List& list, Name name) {
  std::string text;
  for (const auto& one : list) {
    if (!text.empty()) text += ", ";
    text += name(one);
  }
  return text;
}

}  // namespace

const ToolSyntax* find_tool_syntax(std::string_view name) {
  const auto* found = std::ranges::find_if(kSyntaxes, [&](const ToolSyntax& syntax) { return name == syntax.name; });
  return found == kSyntaxes.end() ? nullptr : found;
}

std::string tool_syntax_names() {
  return joined(kSyntaxes, [](const ToolSyntax& syntax) { return syntax.name; });
}

bool is_reasoning_parser(std::string_view name) {
  return std::ranges::find(kReasoningParsers, name) != kReasoningParsers.end();
}

std::string reasoning_parser_names() {
  return joined(kReasoningParsers, [](std::string_view name) { return name; });
}

}  // namespace lanner::server
