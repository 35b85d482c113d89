#include "eval/json_lines.h"

#include <fmt/format.h>

#include <algorithm>

namespace lanner::eval {

Result<std::optional<model::Json>> JsonLines::next() {
  constexpr model::JsonLimits kLimits{.max_bytes = 64 << 20};  // what else is in it is limited as all JSON is
  while (!rest_.empty()) {
    const std::string_view line = rest_.substr(0, rest_.find('\n'));
    rest_.remove_prefix(std::min(rest_.size(), line.size() + 1));
    ++number_;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    LANNER_ASSIGN_OR_RETURN(model::Json value, model::parse_json(line, where(), kLimits));
    return std::optional(std::move(value));
  }
  return std::optional<model::Json>();
}

std::string JsonLines::where() const { return fmt::format("{}:{}", path_, number_); }

const std::string* string_member(const model::Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : found->get_ptr<const std::string*>();
}

}  // namespace lanner::eval
