#include "text/stop_strings.h"

#include <gtest/gtest.h>

#include <random>

namespace lanner {
namespace {

struct Outcome {
  std::string text;
  std::optional<std::size_t> stop;
  bool operator==(const Outcome&) const = default;
};

Outcome feed(const std::vector<std::string>& stops, const std::vector<std::string>& parts) {
  StopMatcher matcher(stops);
  Outcome outcome;
  for (const std::string& part : parts) {
    const StopMatcher::Step step = matcher.push(part);
    outcome.text += step.text;
    outcome.stop = step.stop;
  }
  if (!outcome.stop) outcome.text += matcher.finish();
  return outcome;
}

// What the header promises, in the plainest words: the first end wins, then the longest.
Outcome expected(const std::vector<std::string>& stops, const std::string& text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::optional<std::size_t> best;
    for (std::size_t which = 0; which < stops.size(); ++which) {
      const std::string& stop = stops[which];
      if (stop.empty() || !std::string_view(text).substr(0, end).ends_with(stop)) continue;
      if (!best || stop.size() > stops[*best].size()) best = which;
    }
    if (best) return {text.substr(0, end - stops[*best].size()), best};
  }
  return {text, std::nullopt};
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"</s>", "User:"});
  EXPECT_EQ(matcher.push("abc").text, "abc");
  EXPECT_EQ(matcher.push("x<").text, "x");
  EXPECT_EQ(matcher.push("/").text, "");
  EXPECT_EQ(matcher.push("b").text, "</b");
  EXPECT_EQ(matcher.push("</").text, "");
  const StopMatcher::Step step = matcher.push("s>more");
  EXPECT_EQ(step.text, "");
  EXPECT_EQ(step.stop, 0u);
  EXPECT_EQ(matcher.push("later").text, "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, FinishGivesBackWhatWasHeld) {
  StopMatcher matcher({"abcd"});
  EXPECT_EQ(matcher.push("xabc").text, "x");
  EXPECT_EQ(matcher.finish(), "abc");
}

TEST(StopMatcher, FirstEndWinsThenTheLongest) {
  EXPECT_EQ(feed({"abcd", "bc"}, {"xabcd"}), (Outcome{"xa", 1}));
  EXPECT_EQ(feed({"c", "abc"}, {"xabcd"}), (Outcome{"x", 1}));
  EXPECT_EQ(feed({"aab"}, {"aa", "ab"}), (Outcome{"a", 0}));
}

TEST(StopMatcher, EmptyStopsNeverMatch) { EXPECT_EQ(feed({"", ""}, {"abc"}), (Outcome{"abc", std::nullopt})); }

TEST(StopMatcher, DoesNotDependOnWhereTheTextIsCut) {
  std::mt19937 random(3);
  const auto word = [&](std::size_t longest) {
    std::string text(random() % longest, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) stop = word(7);
    const std::string text = word(20);
    std::vector<std::string> parts;
    for (std::size_t at = 0; at < text.size(); at += parts.back().size())
      parts.push_back(text.substr(at, 1 + random() % 4));
    ASSERT_EQ(feed(stops, parts), expected(stops, text)) << text;
  }
}

}  // namespace
}  // namespace lanner
