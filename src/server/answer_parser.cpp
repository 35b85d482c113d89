#include "server/answer_parser.h"

#include <algorithm>

namespace lanner::server {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";
constexpr std::string_view kArgumentsMark = "[ARGS]";

bool is_blank(char c) { return kBlanks.find(c) != std::string_view::npos; }

/// How much of the end of `text` may be the beginning of `mark`.
std::size_t possible_mark(std::string_view text, std::string_view mark) {
  for (std::size_t size = std::min(text.size(), mark.size() - 1); size > 0; --size) {
    if (mark.starts_with(text.substr(text.size() - size))) return size;
  }
  return 0;
}

std::size_t first_not_blank(std::string_view text, std::size_t from = 0) {
  return std::min(text.find_first_not_of(kBlanks, from), text.size());
}

/// Adds text to `out`, but holds back the blanks at its end, which count only where more follows. `joins`: what is held
/// back and the text's own blanks in front are part of what came before. False where there is nothing but blanks.
bool add_held(std::string_view text, bool joins, std::string& blanks, std::string& out) {
  const std::size_t last = text.find_last_not_of(kBlanks);
  if (last == std::string_view::npos) {
    blanks += text;
    return false;
  }
  if (joins) {
    out += blanks;
  } else {
    text.remove_prefix(text.find_first_not_of(kBlanks));
  }
  const std::size_t end = text.find_last_not_of(kBlanks) + 1;
  out += text.substr(0, end);
  blanks = text.substr(end);
  return true;
}

}  // namespace

// --- thoughts -------------------------------------------------------------------------------------------------------

ThoughtParser::ThoughtParser(AnswerReading::Thoughts thoughts)
    : state_(thoughts == AnswerReading::Thoughts::kNone ? State::kAnswer : State::kBeforeMark) {
  // A model whose thoughts the prompt has begun may write the mark once more.
  if (thoughts == AnswerReading::Thoughts::kBegun) state_ = State::kBeforeThoughts;
}

void ThoughtParser::push(std::string_view text, std::string& reasoning, std::string& answer) {
  text_ += text;
  while (step(/*final=*/false, reasoning, answer)) {
  }
}

void ThoughtParser::finish(std::string& reasoning, std::string& answer) {
  while (step(/*final=*/true, reasoning, answer)) {
  }
}

bool ThoughtParser::step(bool final, std::string& reasoning, std::string& answer) {
  if (text_.empty()) return false;
  switch (state_) {
    case State::kBeforeMark:
    case State::kBeforeThoughts: {
      const std::size_t begin = first_not_blank(text_);
      const std::string_view rest = std::string_view(text_).substr(begin);
      if (!final && kThinkBegin.starts_with(rest) && rest.size() < kThinkBegin.size()) return false;
      const bool marked = rest.starts_with(kThinkBegin);
      if (state_ == State::kBeforeMark && !marked) {  // no thoughts: blanks are the answer's
        state_ = State::kAnswer;
        return true;
      }
      text_.erase(0, begin + (marked ? kThinkBegin.size() : 0));
      state_ = State::kThoughts;
      return true;
    }
    case State::kThoughts: {
      const std::size_t end = text_.find(kThinkEnd);
      if (end != std::string::npos) {
        think(std::string_view(text_).substr(0, end), reasoning);
        blanks_.clear();
        text_.erase(0, end + kThinkEnd.size());
        state_ = State::kBeforeAnswer;
        return true;
      }
      const std::size_t kept = final ? 0 : possible_mark(text_, kThinkEnd);
      const std::size_t size = text_.size() - kept;
      think(std::string_view(text_).substr(0, size), reasoning);
      text_.erase(0, size);
      return false;
    }
    case State::kBeforeAnswer:
      text_.erase(0, first_not_blank(text_));
      if (!text_.empty()) state_ = State::kAnswer;
      return !text_.empty();
    case State::kAnswer:
      answer += text_;
      text_.clear();
      return false;
  }
  return false;
}

void ThoughtParser::think(std::string_view text, std::string& reasoning) {
  if (add_held(text, thinking_, blanks_, reasoning)) thinking_ = true;
}

// --- calls ----------------------------------------------------------------------------------------------------------

ToolCallParser::ToolCallParser(const AnswerReading& reading)
    : syntax_(*reading.tools),
      names_(reading.tool_names),
      one_call_(reading.one_call),
      may_be_bare_(reading.tools->bare) {}

void ToolCallParser::push(std::string_view text, AnswerParts& parts) {
  text_ += text;
  while (step(/*final=*/false, parts)) {
  }
}

void ToolCallParser::finish(AnswerParts& parts) {
  while (step(/*final=*/true, parts)) {
  }
  if (calls_ == 0) parts.content += blanks_;
  blanks_.clear();
}

bool ToolCallParser::step(bool final, AnswerParts& parts) {
  if (text_.empty()) return false;
  switch (state_) {
    case State::kText: return may_be_bare_ ? read_bare(final, parts) : read_text(final, parts);
    case State::kOpen: return read_open(final, parts);
    case State::kName: return read_name(final, parts);
    case State::kJson: return read_json(final, parts);
    case State::kClose: return read_close(final, parts);
  }
  return false;
}

bool ToolCallParser::read_text(bool final, AnswerParts& parts) {
  const std::size_t found = text_.find(syntax_.begin);
  if (found != std::string::npos) {
    say(std::string_view(text_).substr(0, found), parts);
    text_.erase(0, found);
    mark_ = at_ = syntax_.begin.size();
    move_to(State::kOpen);
    return true;
  }
  const std::size_t kept = final ? 0 : possible_mark(text_, syntax_.begin);
  const std::size_t size = text_.size() - kept;
  say(std::string_view(text_).substr(0, size), parts);
  text_.erase(0, size);
  return false;
}

bool ToolCallParser::read_bare(bool /*final*/, AnswerParts& parts) {
  const auto separates = [&](char c) { return is_blank(c) || (calls_ > 0 && c == ';'); };
  const auto begin = std::ranges::find_if_not(text_, separates);
  if (calls_ == 0) say(std::string_view(text_.begin(), begin), parts);
  text_.erase(text_.begin(), begin);
  if (text_.empty()) return false;
  may_be_bare_ = false;
  if (text_.front() != '{') return true;
  mark_ = at_ = 0;
  move_to(State::kOpen);
  return true;
}

void ToolCallParser::skip_blanks() { at_ = first_not_blank(text_, at_); }

bool ToolCallParser::read_open(bool final, AnswerParts& parts) {
  skip_blanks();
  if (at_ == text_.size()) return final && give_up(parts);
  const char c = text_[at_];
  begin_ = at_;
  name_.clear();
  depth_ = 0;
  in_string_ = escaped_ = false;
  if (c == '{' || (c == '[' && syntax_.list)) {
    move_to(State::kJson);
    return true;
  }
  if (!syntax_.list) return give_up(parts);
  move_to(State::kName);
  return true;
}

bool ToolCallParser::read_name(bool final, AnswerParts& parts) {
  constexpr std::size_t kLongestName = 256;
  const std::size_t end = text_.find_first_of("[{", begin_);
  const std::string_view name = std::string_view(text_).substr(begin_, end - begin_);
  const bool fits = name.size() <= kLongestName && name.find_first_of("<>\"'\n") == std::string_view::npos;
  if (!fits) return give_up(parts);
  if (end == std::string::npos) return final && give_up(parts);
  at_ = end;
  const std::string_view rest = std::string_view(text_).substr(end);
  if (rest.starts_with(kArgumentsMark)) {
    at_ += kArgumentsMark.size();
    skip_blanks();
    if (at_ == text_.size()) return final && give_up(parts);
  } else if (!final && kArgumentsMark.starts_with(rest)) {
    return false;
  }
  if (text_[at_] != '{') return give_up(parts);
  name_ = name.substr(0, name.find_last_not_of(kBlanks) + 1);
  begin_ = at_;
  move_to(State::kJson);
  return true;
}

bool ToolCallParser::read_json(bool final, AnswerParts& parts) {
  constexpr std::string_view kOutsideStrings = "{}[],:\"+-.0123456789eEtrufalsn \t\r\n";
  for (; at_ < text_.size(); ++at_) {
    const char c = text_[at_];
    if (in_string_) {
      in_string_ = escaped_ || c != '"';
      escaped_ = !escaped_ && c == '\\';
      continue;
    }
    if (kOutsideStrings.find(c) == std::string_view::npos) return give_up(parts);
    in_string_ = c == '"';
    if (c == '{' || c == '[') ++depth_;
    if (c == '}' || c == ']') --depth_;
    if (depth_ > 0) continue;
    end_ = ++at_;
    move_to(State::kClose);
    return true;
  }
  return final && give_up(parts);
}

bool ToolCallParser::read_close(bool final, AnswerParts& parts) {
  if (syntax_.end.empty()) return accept(end_, parts);
  skip_blanks();
  const std::string_view rest = std::string_view(text_).substr(at_);
  if (rest.starts_with(syntax_.end)) return accept(at_ + syntax_.end.size(), parts);
  if (!syntax_.end.starts_with(rest)) return give_up(parts);
  if (!final) return false;
  return rest.empty() ? accept(text_.size(), parts) : give_up(parts);  // the answer ended in place of the mark
}

bool ToolCallParser::give_up(AnswerParts& parts) {
  const std::size_t size = std::max<std::size_t>(mark_, 1);
  say(std::string_view(text_).substr(0, size), parts);
  text_.erase(0, size);
  move_to(State::kText);
  return true;
}

bool ToolCallParser::is_offered(std::string_view name) const { return std::ranges::find(names_, name) != names_.end(); }

std::optional<ToolCall> ToolCallParser::call_of(const Json& json) const {
  if (!name_.empty()) return is_offered(name_) ? std::optional(ToolCall{name_, to_text(json)}) : std::nullopt;
  if (!json.is_object()) return std::nullopt;
  const auto name = json.find("name");
  if (name == json.end() || !name->is_string() || !is_offered(name->get_ref<const std::string&>())) return std::nullopt;
  ToolCall call{.name = name->get<std::string>(), .arguments = "{}"};
  for (const char* key : {"arguments", "parameters"}) {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null()) continue;
    if (found->is_object()) {
      call.arguments = to_text(*found);
      return call;
    }
    // Some models quote the object.
    if (!found->is_string()) return std::nullopt;
    const Result<Json> quoted = parse_json(found->get_ref<const std::string&>());
    if (!quoted.ok() || !quoted->is_object()) return std::nullopt;
    call.arguments = to_text(*quoted);
    return call;
  }
  return call;
}

bool ToolCallParser::accept(std::size_t end, AnswerParts& parts) {
  const Result<Json> json = parse_json(std::string_view(text_).substr(begin_, end_ - begin_));
  if (!json.ok()) return give_up(parts);
  std::vector<ToolCall> calls;
  const bool list = json->is_array();
  if (list && json->empty()) return give_up(parts);
  for (const Json& one : list ? *json : Json::array({*json})) {
    std::optional<ToolCall> call = call_of(one);
    if (!call) return give_up(parts);
    calls.push_back(*std::move(call));
  }
  for (ToolCall& call : calls) {
    if (one_call_ && calls_ > 0) break;
    parts.calls.push_back(std::move(call));
    ++calls_;
  }
  blanks_.clear();
  text_.erase(0, end);
  may_be_bare_ = syntax_.bare;
  move_to(State::kText);
  return true;
}

void ToolCallParser::say(std::string_view text, AnswerParts& parts) {
  // Where nothing but a call stands in front, its blanks are of no account.
  if (add_held(text, said_ || calls_ == 0, blanks_, parts.content)) said_ = true;
}

// --- both -----------------------------------------------------------------------------------------------------------

AnswerParser::AnswerParser(const AnswerReading& reading) {
  if (reading.thoughts != AnswerReading::Thoughts::kNone) thoughts_.emplace(reading.thoughts);
  if (reading.tools != nullptr) tools_.emplace(reading);
}

void AnswerParser::push(std::string_view text, AnswerParts& parts) {
  std::string answer;
  if (thoughts_) {
    thoughts_->push(text, parts.reasoning, answer);
    text = answer;
  }
  if (tools_) {
    tools_->push(text, parts);
  } else {
    parts.content += text;
  }
}

void AnswerParser::finish(AnswerParts& parts) {
  std::string answer;
  if (thoughts_) thoughts_->finish(parts.reasoning, answer);
  if (!tools_) {
    parts.content += answer;
    return;
  }
  tools_->push(answer, parts);
  tools_->finish(parts);
}

AnswerParts parts_of(const AnswerReading& reading, std::string_view text) {
  AnswerParser parser(reading);
  AnswerParts parts;
  parser.push(text, parts);
  parser.finish(parts);
  return parts;
}

}  // namespace lanner::server
