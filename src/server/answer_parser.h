#pragma once
// What an answer's text holds besides what is said: thoughts, and calls of tools.
//
//   AnswerParser parser(reading);
//   parser.push("<tool_call>{\"na", parts);  …  parser.finish(parts);
//
// However the text is cut, the parts put together are the same. A call is told when it is complete; what looks like one
// and is none (no JSON, a tool that nobody offered, an answer that ends within it) is content, as the model wrote it.
//
// Threads: one at a time.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/json.h"
#include "server/tool_syntax.h"

namespace lanner::server {

struct ToolCall {
  std::string name;
  std::string arguments;  // the JSON of an object
};

/// What pieces of text add.
struct AnswerParts {
  std::string content;
  std::string reasoning;
  std::vector<ToolCall> calls;
};

/// How the answers to a request are read. As it is made, all text is content.
struct AnswerReading {
  enum class Thoughts {
    kNone,      // are not looked for
    kMayBegin,  // with <think>
    kBegun,     // by the prompt: the answer begins within them
  };
  Thoughts thoughts = Thoughts::kNone;
  const ToolSyntax* tools = nullptr;      // nullptr: no calls are looked for
  std::vector<std::string> tool_names{};  // that may be called
  bool one_call = false;                  // calls after the first are left out

  /// Whether there is more to an answer than its content.
  bool has_parts() const { return tools != nullptr || thoughts != Thoughts::kNone; }
};

/// Thoughts apart from the answer. Blanks at the borders belong to neither.
class ThoughtParser {
 public:
  explicit ThoughtParser(AnswerReading::Thoughts thoughts);
  /// Appends to both.
  void push(std::string_view text, std::string& reasoning, std::string& answer);
  void finish(std::string& reasoning, std::string& answer);

 private:
  enum class State { kBeforeMark, kBeforeThoughts, kThoughts, kBeforeAnswer, kAnswer };
  /// False: more text has to come.
  bool step(bool final, std::string& reasoning, std::string& answer);
  void think(std::string_view text, std::string& reasoning);

  State state_;
  std::string text_;       // not read yet
  std::string blanks_;     // of thoughts, which are dropped if these end with them
  bool thinking_ = false;  // something was thought that is not blank
};

class ToolCallParser {
 public:
  explicit ToolCallParser(const AnswerReading& reading);
  void push(std::string_view text, AnswerParts& parts);
  void finish(AnswerParts& parts);

 private:
  enum class State { kText, kOpen, kName, kJson, kClose };
  bool step(bool final, AnswerParts& parts);
  bool read_text(bool final, AnswerParts& parts);
  bool read_bare(bool final, AnswerParts& parts);
  bool read_open(bool final, AnswerParts& parts);
  bool read_name(bool final, AnswerParts& parts);
  bool read_json(bool final, AnswerParts& parts);
  bool read_close(bool final, AnswerParts& parts);
  /// What stands at the beginning of the text is no call: its mark is content, and what follows is read again.
  bool give_up(AnswerParts& parts);
  bool accept(std::size_t end, AnswerParts& parts);
  std::optional<ToolCall> call_of(const Json& json) const;
  bool is_offered(std::string_view name) const;
  void say(std::string_view text, AnswerParts& parts);
  void skip_blanks();
  void move_to(State state) { state_ = state; }

  const ToolSyntax& syntax_;
  const std::vector<std::string> names_;
  const bool one_call_;
  State state_ = State::kText;
  std::string text_;       // not read yet; of a call, from its mark on
  std::size_t mark_ = 0;   // length of the mark; 0: none
  std::size_t at_ = 0;     // read of text_ so far
  std::size_t begin_ = 0;  // of the JSON
  std::size_t end_ = 0;    // behind it
  std::string name_;       // that stood in front of the JSON
  int depth_ = 0;          // of lists and objects in the JSON
  bool in_string_ = false;
  bool escaped_ = false;
  bool may_be_bare_;    // a call may begin here without a mark
  std::string blanks_;  // not said yet: they are dropped in front of a call
  bool said_ = false;   // content that is not blank
  std::size_t calls_ = 0;
};

class AnswerParser {
 public:
  explicit AnswerParser(const AnswerReading& reading);
  void push(std::string_view text, AnswerParts& parts);
  void finish(AnswerParts& parts);

 private:
  std::optional<ThoughtParser> thoughts_;
  std::optional<ToolCallParser> tools_;
};

/// The parts of an answer that has come to its end.
AnswerParts parts_of(const AnswerReading& reading, std::string_view text);

}  // namespace lanner::server
