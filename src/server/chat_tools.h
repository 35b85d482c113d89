#pragma once
// Tools in the requests of chats: which there are, and which the model may or must call. Pure functions.

#include <optional>
#include <string>
#include <vector>

#include "lanner/pipeline.h"
#include "server/fields.h"
#include "server/tool_syntax.h"

namespace lanner::server {

struct Tool {
  std::string name;
  Json parameters;  // a JSON schema
};

/// As it is made: no tools.
struct ToolUse {
  const ToolSyntax* syntax = nullptr;
  std::vector<Tool> tools{};     // that may be called
  bool demanded = false;         // one of them must be
  bool one_call = false;         // no more than one
  std::string template_tools{};  // for the chat template: JSON, all that the request names

  bool may_be_called() const { return !tools.empty(); }
  std::vector<std::string> names() const;
};

/// tools, tool_choice and parallel_tool_calls. `syntax` is the model's, nullptr where the server was told none.
std::optional<Refusal> read_tools(const Json& body, const ToolSyntax* syntax, ToolUse& use);

/// Calls in the messages of `body`, which go to the chat template as they are.
std::optional<Refusal> check_calls_in_messages(const Json& messages);

}  // namespace lanner::server
