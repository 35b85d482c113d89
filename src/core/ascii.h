#pragma once
// Letters as protocols and file names compare them: those of ASCII alone, whatever the locale.

#include <algorithm>
#include <string>
#include <string_view>

namespace lanner {

constexpr char lower_case(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

/// A to Z become a to z; every other byte stays.
inline std::string lower_case(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](char c) { return lower_case(c); });
  return result;
}

}  // namespace lanner
