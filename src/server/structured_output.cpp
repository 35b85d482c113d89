#include "server/structured_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "text/grammar.h"

namespace lanner::server {
namespace {

constexpr const char* kField = "response_format";
constexpr std::array<std::string_view, 5> kTypes{"text", "json_object", "json_schema", "regex_schema", "grammar"};

/// Refuses members beyond those of `known`.
std::optional<Refusal> check_members(const Json& object, const std::string& where,
                                     std::initializer_list<std::string_view> known) {
  for (const auto& [name, value] : object.items()) {
    if (std::ranges::find(known, name) == known.end()) {
      return bad_field(where + "." + name.substr(0, 100), "unknown field");
    }
  }
  return std::nullopt;
}

/// A schema and what stands beside it.
std::optional<Refusal> read_schema(const Json& named, const std::string& where, std::optional<GrammarSource>& source) {
  for (const char* name : {"name", "description"}) {
    const Json* value = find(named, name);
    if (value != nullptr && !value->is_string()) return bad_field(where + "." + name, "must be a string");
  }
  const Json* strict = find(named, "strict");
  if (strict != nullptr && !strict->is_boolean()) return bad_field(where + ".strict", "must be true or false");
  const Json* schema = find(named, "schema");
  if (schema == nullptr || !(schema->is_object() || schema->is_boolean())) {
    return bad_field(where + ".schema", "must be a JSON schema");
  }
  source = {.kind = GrammarSource::Kind::kJsonSchema, .text = to_text(*schema)};
  return std::nullopt;
}

std::optional<Refusal> read_json_schema(const Json& format, std::optional<GrammarSource>& source) {
  if (auto refusal = check_members(format, kField, {"type", "json_schema"})) return refusal;
  const Json* wrapped = find(format, "json_schema");
  const std::string where = "response_format.json_schema";
  if (wrapped == nullptr || !wrapped->is_object()) return bad_field(where, "must be an object with a schema");
  if (auto refusal = check_members(*wrapped, where, {"name", "description", "schema", "strict"})) return refusal;
  return read_schema(*wrapped, where, source);
}

GrammarSource any_object() { return {.kind = GrammarSource::Kind::kJsonSchema, .text = R"({"type":"object"})"}; }

std::optional<Refusal> read_text(const Json& format, const char* name, std::string& text) {
  const Json* value = find(format, name);
  if (value == nullptr || !value->is_string() || value->get_ref<const std::string&>().empty()) {
    return bad_field(std::string(kField) + "." + name, "must be a string that is not empty");
  }
  text = value->get<std::string>();
  return std::nullopt;
}

std::optional<Refusal> read_grammar(const Json& format, std::optional<GrammarSource>& source) {
  if (auto refusal = check_members(format, kField, {"type", "syntax", "definition"})) return refusal;
  const Json* syntax = find(format, "syntax");
  source.emplace(GrammarSource{.kind = GrammarSource::Kind::kLark});
  if (syntax != nullptr && *syntax == "regex") {
    source->kind = GrammarSource::Kind::kRegex;
  } else if (syntax != nullptr && *syntax != "lark") {
    return bad_field("response_format.syntax", "must be \"lark\" or \"regex\"");
  }
  return read_text(format, "definition", source->text);
}

// --- grammars in Lark's form ----------------------------------------------------------------------------------------

/// The tokens that text is made of, if they are all special.
std::vector<std::int32_t> special_tokens(const Pipeline& pipeline, std::string_view text) {
  const Result<std::vector<std::int32_t>> ids = pipeline.encode(text, /*add_special_tokens=*/false);
  if (!ids.ok()) return {};
  const auto hidden = [&](std::int32_t id) {
    const Result<std::string> shown = pipeline.decode({id}, /*skip_special_tokens=*/true);
    return shown.ok() && shown->empty() && !pipeline.token_bytes(id).empty();
  };
  return std::ranges::all_of(*ids, hidden) ? *ids : std::vector<std::int32_t>{};
}

/// A terminal: special tokens by their ids, or the text.
std::string mark(const Pipeline& pipeline, std::string_view text) {
  std::string ids;
  for (const std::int32_t id : special_tokens(pipeline, text)) ids += fmt::format("<[{}]> ", id);
  return ids.empty() ? json_string(text) : ids;
}

/// `schema` in a rule's body, with our rule for blanks.
std::string json_rule(Json schema) {
  if (schema.is_boolean() && schema.get<bool>()) schema = Json::object();
  if (schema.is_object()) schema["x-guidance"] = {{"whitespace_pattern", kJsonBlanks}};
  return "%json " + to_text(schema);
}

std::string regex_rule(std::string_view regex) {
  std::string escaped;
  bool quoted = false;  // by a backslash in front
  for (const char c : regex) {
    if (c == '/' && !quoted) escaped += '\\';
    if (c == '\n') {
      escaped += quoted ? "n" : "\\n";
    } else {
      escaped += c;
    }
    quoted = c == '\\' && !quoted;
  }
  return "/" + escaped + "/";
}

/// The rule `call`: one call of any tool, without its marks. `free`: only strict tools are held to their schemas.
std::string call_rule(const ToolUse& tools, bool free) {
  const ToolSyntax& syntax = *tools.syntax;
  std::string calls;
  std::string rules;
  for (std::size_t i = 0; i < tools.tools.size(); ++i) {
    const Tool& tool = tools.tools[i];
    const std::string head = fmt::format("{{\"name\": {}, \"{}\": ", json_string(tool.name), syntax.arguments_key);
    const Json schema = free && !tool.strict ? Json{{"type", "object"}} : tool.parameters;
    rules += fmt::format("call_{}: {} arguments_{} \"}}\"\narguments_{}: {}\n", i, json_string(head), i, i,
                         json_rule(schema));
    calls += fmt::format("{}call_{}", i > 0 ? " | " : "", i);
  }
  return rules + "call: " + calls + "\n";
}

/// What stands behind the mark that begins calls, written as models of the family learn it.
std::string marked_body(const Pipeline& pipeline, const ToolUse& tools) {
  const ToolSyntax& syntax = *tools.syntax;
  if (syntax.list) return tools.one_call ? R"("[" call "]")" : R"("[" call (", " call)* "]")";
  if (syntax.bare) return tools.one_call ? "call" : R"(call ("; " call)*)";
  const std::string line_end = syntax.line_end.empty() ? "" : json_string(syntax.line_end);
  return fmt::format("{} call {} {}", line_end, line_end, syntax.end.empty() ? "" : mark(pipeline, syntax.end));
}

/// The rule `calls` and what it needs: calls, and nothing else.
std::string demanded_rules(const Pipeline& pipeline, const ToolUse& tools) {
  const ToolSyntax& syntax = *tools.syntax;
  const std::string rules = call_rule(tools, /*free=*/false) + "body: " + marked_body(pipeline, tools) + "\n";
  if (syntax.bare) return rules + "calls: body\n";
  const std::string one = mark(pipeline, syntax.begin) + " body";
  if (syntax.list || tools.one_call) return rules + "calls: " + one + "\n";
  return rules + fmt::format("marked: {}\ncalls: marked (\"\\n\" marked)*\n", one);
}

/// The rule `rest` and what it needs: whatever the model likes, but what begins as a call is one. Text ends where the
/// mark is complete, since the shortest match of a lazy rule wins over all others.
std::string free_rules(const Pipeline& pipeline, const ToolUse& tools, bool may_think) {
  const ToolSyntax& syntax = *tools.syntax;
  // Answers of such models that begin with a brace are calls.
  const std::string text = syntax.bare ? R"(/[ \t\r\n]*([^{ \t\r\n](?s:.*))?/)" : R"(/(?s:.*)/)";
  std::string rules = call_rule(tools, /*free=*/true) + "body: " + marked_body(pipeline, tools) + "\n";
  rules += fmt::format("TALK: {}\ntalk: TALK\n", text);
  // A mark within thoughts, which are text here, begins nothing.
  const std::string thinks = fmt::format(R"(/[ \t\r\n]*{}(?s:.*)/ & ~/(?s:.*)<\/think>(?s:.*)/)", kThinkBegin);
  const std::string answering = may_think ? fmt::format(" & ~({})", thinks) : "";
  if (special_tokens(pipeline, syntax.begin).empty()) {
    rules += fmt::format("MARKED: {} {}{}\nlead[lazy]: MARKED\n", text, json_string(syntax.begin), answering);
  } else {
    rules += fmt::format("LEAD: {}{}\nlead: LEAD {}\n", text, answering, mark(pipeline, syntax.begin));
  }
  if (syntax.bare) return rules + "rest: body | lead body | talk\n";
  if (syntax.list) return rules + "rest: lead body | talk\n";
  return rules + "rest: (lead body)* talk\n";
}

/// The rule `thoughts`, to their end.
std::string thought_rules(const Pipeline& pipeline, AnswerReading::Thoughts thoughts) {
  const std::vector<std::int32_t> end = special_tokens(pipeline, kThinkEnd);
  std::string rules;
  if (end.empty()) {
    rules = fmt::format("thinking[suffix={}]: /(?s:.*)/\n", json_string(kThinkEnd));
  } else {
    rules = "thinking: /(?s:.*)/ " + mark(pipeline, kThinkEnd) + "\n";
  }
  const bool begun = thoughts == AnswerReading::Thoughts::kBegun;
  rules += "thoughts: " + (begun ? std::string() : mark(pipeline, kThinkBegin)) + " thinking gap?\n";
  return rules + "gap: /[ \\n]{1,4}/\n";
}

/// The rule `begin`: the rule `rest`, with thoughts in front.
std::string begin_rules(const Pipeline& pipeline, AnswerReading::Thoughts thoughts) {
  const bool begun = thoughts == AnswerReading::Thoughts::kBegun;
  return std::string("begin: ") + (begun ? "thoughts rest\n" : "thoughts rest | rest\n") +
         thought_rules(pipeline, thoughts);
}

GrammarSource lark(std::string text) { return {.kind = GrammarSource::Kind::kLark, .text = std::move(text)}; }

/// Free but for calls of strict tools.
GrammarSource strict_grammar(const Pipeline& pipeline, const ToolUse& tools, AnswerReading::Thoughts thoughts) {
  // Where nothing but text tells thoughts from the answer, one rule has to read both.
  const bool as_text = thoughts == AnswerReading::Thoughts::kMayBegin && special_tokens(pipeline, kThinkBegin).empty();
  const bool apart = thoughts != AnswerReading::Thoughts::kNone && !as_text;
  const std::string rest = free_rules(pipeline, tools, as_text);
  return lark(apart ? "start: begin\n" + begin_rules(pipeline, thoughts) + rest : "start: rest\n" + rest);
}

}  // namespace

bool spells_special_tokens(const Pipeline& pipeline, std::string_view text) {
  return !special_tokens(pipeline, text).empty();
}

std::optional<Refusal> read_response_format(const Json& body, std::optional<GrammarSource>& format) {
  const Json* given = find(body, kField);
  if (given == nullptr) return std::nullopt;
  const Json* type = find(*given, "type");
  if (type == nullptr || !type->is_string() ||
      std::ranges::find(kTypes, type->get_ref<const std::string&>()) == kTypes.end()) {
    return bad_field("response_format.type", "must be text, json_object, json_schema, regex_schema or grammar");
  }
  if (*type == "json_schema") return read_json_schema(*given, format);
  if (*type == "grammar") return read_grammar(*given, format);
  if (*type == "regex_schema") {
    if (auto refusal = check_members(*given, kField, {"type", "regex_schema"})) return refusal;
    format.emplace(GrammarSource{.kind = GrammarSource::Kind::kRegex});
    return read_text(*given, "regex_schema", format->text);
  }
  if (auto refusal = check_members(*given, kField, {"type"})) return refusal;
  if (*type == "json_object") format = any_object();
  return std::nullopt;
}

std::optional<Refusal> read_flat_format(const Json& given, const std::string& where,
                                        std::optional<GrammarSource>& format) {
  if (!given.is_object()) return bad_field(where, "must be an object");
  const Json* type = find(given, "type");
  if (type != nullptr && *type == "json_schema") {
    if (auto refusal = check_members(given, where, {"type", "name", "description", "schema", "strict"})) return refusal;
    return read_schema(given, where, format);
  }
  if (type == nullptr || (*type != "text" && *type != "json_object")) {
    return bad_field(where + ".type", "must be text, json_object or json_schema");
  }
  if (auto refusal = check_members(given, where, {"type"})) return refusal;
  if (*type == "json_object") format = any_object();
  return std::nullopt;
}

std::optional<Refusal> answer_grammar(const Pipeline& pipeline, const std::optional<GrammarSource>& format,
                                      const ToolUse& tools, const AnswerReading& reading,
                                      std::optional<GrammarSource>& grammar) {
  const bool thinks = reading.thoughts != AnswerReading::Thoughts::kNone;
  const bool calls = tools.demanded || (format && tools.may_be_called());
  if (!format && !calls) {
    if (tools.has_strict()) grammar = strict_grammar(pipeline, tools, reading.thoughts);
    return std::nullopt;
  }
  if (!calls && !thinks) {
    grammar = format;
    return std::nullopt;
  }
  const bool answers = format && !tools.demanded;
  if (answers && format->kind == GrammarSource::Kind::kLark) {
    return bad_field(kField, "a grammar is not available together with tools or with thoughts of the model");
  }
  std::string rules = std::string("start: ") + (thinks ? "begin" : "rest") + "\n";
  if (thinks) rules += begin_rules(pipeline, reading.thoughts);
  rules += std::string("rest: ") + (answers && calls ? "calls | answer" : answers ? "answer" : "calls") + "\n";
  if (calls) rules += demanded_rules(pipeline, tools);
  if (answers) {
    const bool regex = format->kind == GrammarSource::Kind::kRegex;
    rules += "answer: " + (regex ? regex_rule(format->text) : json_rule(Json::parse(format->text))) + "\n";
  }
  grammar = lark(std::move(rules));
  return std::nullopt;
}

std::optional<Refusal> set_grammar(Pipeline& pipeline, const GrammarSource& grammar, const std::string& field,
                                   GenerationRequest& request) {
  if (request.config.min_new_tokens > 0) return bad_field("min_new_tokens", "not together with a grammar");
  auto compiled = pipeline.compile_grammar(grammar);
  if (!compiled.ok()) {
    const StatusCode code = compiled.status().code();
    const bool theirs = code == StatusCode::kInvalidArgument || code == StatusCode::kResourceExhausted;
    if (!theirs) return refusal_of(compiled.status());
    return bad_field(field, compiled.status().message());
  }
  request.grammar = *std::move(compiled);
  return std::nullopt;
}

}  // namespace lanner::server
