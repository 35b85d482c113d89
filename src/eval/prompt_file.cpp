#include "eval/prompt_file.h"

#include <fmt/format.h>

#include <optional>

#include "core/mapped_file.h"
#include "eval/json_lines.h"

namespace lanner::eval {
namespace {

using model::Json;

constexpr model::JsonLimits kLimits{.max_bytes = std::int64_t{1} << 30, .max_depth = 16, .max_values = 50'000'000};

Result<std::vector<std::string>> read_lines(const std::string& text, const std::string& path, std::size_t most) {
  JsonLines lines(text, path);
  std::vector<std::string> prompts;
  while (prompts.size() < most) {
    LANNER_ASSIGN_OR_RETURN(const std::optional<Json> line, lines.next());
    if (!line) break;
    const std::string* prompt = string_member(*line, "prompt");
    if (prompt == nullptr) return corrupt(lines.where() + ": no string \"prompt\"");
    if (!prompt->empty()) prompts.push_back(*prompt);
  }
  return prompts;
}

}  // namespace

Result<std::vector<std::string>> read_prompts(const std::string& path, std::size_t most) {
  LANNER_ASSIGN_OR_RETURN(const std::string text, read_file(path, kLimits.max_bytes));
  if (path.ends_with(".jsonl")) return read_lines(text, path, most);
  LANNER_ASSIGN_OR_RETURN(const Json list, model::parse_json(text, path, kLimits));
  if (!list.is_array()) return corrupt(path + ": not a list of conversations");
  std::vector<std::string> prompts;
  for (std::size_t i = 0; i < list.size() && prompts.size() < most; ++i) {
    const auto turns = list[i].is_object() ? list[i].find("conversations") : list[i].end();
    if (!list[i].is_object() || turns == list[i].end() || !turns->is_array()) {
      return corrupt(fmt::format("{}: entry {} has no list \"conversations\"", path, i));
    }
    if (turns->empty()) continue;  // as in the file that is in use everywhere
    const std::string* prompt = string_member(turns->front(), "value");
    if (prompt == nullptr) return corrupt(fmt::format("{}: entry {}: the first turn has no string \"value\"", path, i));
    if (!prompt->empty()) prompts.push_back(*prompt);
  }
  return prompts;
}

}  // namespace lanner::eval
