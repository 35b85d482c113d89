#pragma once
// How families of models write calls of tools into their text: one row of data a family.

#include <span>
#include <string>
#include <string_view>

namespace lanner::server {

/// `begin` JSON `end`, once for each call. The JSON is {"name": …, `arguments_key`: {…}}.
struct ToolSyntax {
  const char* name;
  std::string_view begin;
  std::string_view end{};  // empty: with the JSON
  const char* arguments_key = "arguments";
  std::string_view line_end = "";  // between the marks and the JSON
  bool list = false;               // a list of calls in place of the JSON; or a name, [ARGS] and the arguments alone
  bool bare = false;               // also without `begin`, at the beginning of the answer
};

/// The syntax that --tool-call-parser names; nullptr for an unknown name.
const ToolSyntax* find_tool_syntax(std::string_view name);
/// All names, as a list for people.
std::string tool_syntax_names();

/// Names that --reasoning-parser takes: "<think>…</think>" in front of the answer is all there is.
bool is_reasoning_parser(std::string_view name);
std::string reasoning_parser_names();

inline constexpr std::string_view kThinkBegin = "<think>";
inline constexpr std::string_view kThinkEnd = "</think>";

}  // namespace lanner::server
