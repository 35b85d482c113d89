#include "net/hub_json.h"

#include <fmt/format.h>

namespace lanner::net {
namespace {

/// Depth and number of values, from the punctuation outside strings: what is past the limits is never built.
Status check_limits(std::string_view text, std::string_view where) {
  int depth = 0;
  std::int64_t values = 1;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    in_string = c == '"';
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    if (c == ',' || c == '{' || c == '[') ++values;
    if (depth > kMaxJsonDepth) return corrupt(fmt::format("{}: JSON deeper than {} levels", where, kMaxJsonDepth));
    if (values > kMaxJsonValues)
      return corrupt(fmt::format("{}: JSON with more than {} values", where, kMaxJsonValues));
  }
  return {};
}

}  // namespace

Result<Json> parse_hub_json(std::string_view text, std::string_view where) {
  LANNER_RETURN_IF_ERROR(check_limits(text, where));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return corrupt(fmt::format("{}: is not JSON", where));
  return json;
}

std::optional<std::string> json_text(const Json& object, const char* key) {
  if (!object.is_object()) return std::nullopt;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return std::nullopt;
  return found->get<std::string>();
}

std::optional<std::int64_t> json_integer(const Json& object, const char* key) {
  if (!object.is_object()) return std::nullopt;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer()) return std::nullopt;
  if (found->is_number_unsigned() && found->get<std::uint64_t>() > std::uint64_t{INT64_MAX}) return std::nullopt;
  return found->get<std::int64_t>();
}

}  // namespace lanner::net
