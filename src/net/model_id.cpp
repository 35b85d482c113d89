#include "net/model_id.h"

#include <algorithm>

namespace lanner::net {
namespace {

constexpr std::size_t kMaxPartBytes = 96;
constexpr std::size_t kMaxSelectorBytes = 256;
constexpr std::size_t kMaxRevisionBytes = 200;

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

bool is_part(std::string_view text) {
  if (text.empty() || text.size() > kMaxPartBytes || !std::ranges::all_of(text, is_plain)) return false;
  const auto edge = [](char c) { return c == '-' || c == '.'; };
  return !edge(text.front()) && !edge(text.back()) && text.find("--") == std::string_view::npos &&
         text.find("..") == std::string_view::npos;
}

}  // namespace

std::optional<ModelId> parse_model_id(std::string_view text) {
  ModelId id;
  const std::size_t colon = text.find(':');
  if (colon != std::string_view::npos) {
    const std::string_view selector = text.substr(colon + 1);
    const bool clean = std::ranges::all_of(selector, [](char c) { return is_plain(c) || c == '/' || c == ' '; });
    if (selector.empty() || selector.size() > kMaxSelectorBytes || !clean) return std::nullopt;
    id.selector = selector;
  }
  const std::string_view repository = text.substr(0, colon);
  const std::size_t slash = repository.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  id.organization = repository.substr(0, slash);
  id.name = repository.substr(slash + 1);
  if (!is_part(id.organization) || !is_part(id.name)) return std::nullopt;
  return id;
}

bool is_revision(std::string_view text) {
  if (text.empty() || text.size() > kMaxRevisionBytes || text.front() == '/' || text.back() == '/') return false;
  if (text.find("..") != std::string_view::npos || text.find("//") != std::string_view::npos) return false;
  return text.front() != '.' && text.find("/.") == std::string_view::npos &&
         std::ranges::all_of(text, [](char c) { return is_plain(c) || c == '/' || c == '+' || c == '@' || c == '='; });
}

}  // namespace lanner::net
