#include "eval/prompt_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/mapped_file.h"
#include "model/json_reader.h"

namespace lanner::eval {
namespace {

using Json = nlohmann::ordered_json;

constexpr model::JsonLimits kLimits{.max_bytes = std::int64_t{1} << 30, .max_depth = 16, .max_values = 50'000'000};

/// A member that is a string; null where there is none.
const std::string* text_of(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : found->get_ptr<const std::string*>();
}

Result<std::vector<std::string>> read_lines(const std::string& text, const std::string& path, std::size_t most) {
  std::vector<std::string> prompts;
  std::istringstream input(text);
  std::string line;
  for (std::int64_t number = 1; prompts.size() < most && std::getline(input, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    LANNER_ASSIGN_OR_RETURN(const Json object, model::parse_json(line, fmt::format("{}:{}", path, number), kLimits));
    const std::string* prompt = text_of(object, "prompt");
    if (prompt == nullptr) return corrupt(fmt::format("{}:{}: no string \"prompt\"", path, number));
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
    const std::string* prompt = text_of(turns->front(), "value");
    if (prompt == nullptr) return corrupt(fmt::format("{}: entry {}: the first turn has no string \"value\"", path, i));
    if (!prompt->empty()) prompts.push_back(*prompt);
  }
  return prompts;
}

}  // namespace lanner::eval
