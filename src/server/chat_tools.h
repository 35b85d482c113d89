#pragma once
// Tools in the requests of chats: which there are, and which the model may or must call. Pure functions.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lanner/pipeline.h"
#include "server/fields.h"
#include "server/tool_syntax.h"

namespace lanner::server {

struct Tool {
  std::string name;
  Json parameters;      // a JSON schema
  bool strict = false;  // its arguments fit the schema also where the model calls it of its own accord
};

/// As it is made: no tools.
struct ToolUse {
  const ToolSyntax* syntax = nullptr;
  std::vector<Tool> tools{};     // that may be called
  bool demanded = false;         // one of them must be
  bool one_call = false;         // no more than one
  std::string template_tools{};  // for the chat template: JSON, all that the request names

  bool may_be_called() const { return !tools.empty(); }
  bool has_strict() const;
  std::vector<std::string> names() const;
};

/// How requests write tools and the choice among them: /v1/chat/completions, /v1/responses and /v1/messages.
enum class ToolProtocol : std::uint8_t { kChat, kResponses, kMessages };

/// tools, tool_choice and parallel_tool_calls. `syntax` is the model's, nullptr where the server was told none.
std::optional<Refusal> read_tools(const Json& body, ToolProtocol protocol, const ToolSyntax* syntax, ToolUse& use);

/// Calls in the messages of `body`, which go to the chat template.
std::optional<Refusal> check_calls_in_messages(const Json& messages);

/// A call in a conversation as chat templates take it: with an object of arguments, also where they are given as text.
Json template_call(const Json& id, const Json& name, const Json& arguments);
/// The same of a call in the form of OpenAI's chats.
Json template_call(Json call);

}  // namespace lanner::server
