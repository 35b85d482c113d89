#include "text/stop_strings.h"

#include <algorithm>
#include <utility>

namespace lanner {

StopMatcher::Pattern StopMatcher::prepare(std::string text) {
  Pattern pattern{std::move(text), {}, 0};
  pattern.border.assign(pattern.text.size(), 0);
  std::size_t length = 0;
  for (std::size_t i = 1; i < pattern.text.size(); ++i) {
    while (length > 0 && pattern.text[i] != pattern.text[length]) length = pattern.border[length - 1];
    if (pattern.text[i] == pattern.text[length]) ++length;
    pattern.border[i] = length;
  }
  return pattern;
}

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  patterns_.reserve(stops.size());
  for (std::string& stop : stops) patterns_.push_back(prepare(std::move(stop)));
}

void StopMatcher::advance(Pattern& pattern, char byte) {
  if (pattern.text.empty()) return;
  while (pattern.matched > 0 && pattern.text[pattern.matched] != byte) {
    pattern.matched = pattern.border[pattern.matched - 1];
  }
  if (pattern.text[pattern.matched] == byte) ++pattern.matched;
}

StopMatcher::Step StopMatcher::push(std::string_view text) {
  if (found_) return {{}, found_};
  held_ += text;
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::size_t longest = 0;
    for (std::size_t which = 0; which < patterns_.size(); ++which) {
      Pattern& pattern = patterns_[which];
      advance(pattern, text[i]);
      if (pattern.matched > longest && pattern.matched == pattern.text.size()) {
        longest = pattern.matched;
        found_ = which;
      }
    }
    if (found_) {
      const std::size_t end = held_.size() - text.size() + i + 1;
      std::string safe = held_.substr(0, end - longest);
      held_.clear();
      return {std::move(safe), found_};
    }
  }
  std::size_t keep = 0;
  for (const Pattern& pattern : patterns_) keep = std::max(keep, pattern.matched);
  std::string safe = held_.substr(0, held_.size() - keep);
  held_.erase(0, safe.size());
  return {std::move(safe), std::nullopt};
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

}  // namespace lanner
