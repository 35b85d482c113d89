#pragma once
// Finds stop strings in text that arrives in pieces.
//
// push() returns the text that may be shown now; what could still be the beginning of a stop string is held back until
// it is decided. The answer does not depend on where the pieces were cut: the first stop string to be complete wins,
// and of several that end at the same byte the longest. The stop string itself and all that follows is dropped.
//
//   StopMatcher stops({"</s>", "\nUser:"});
//   StopMatcher::Step step = stops.push(text);
//   send(step.text);
//   if (step.stop) finish_with_reason_stop(*step.stop);   // otherwise, when the generation ends:
//   send(stops.finish());
//
// Ownership: a value. Threads: one at a time. Errors: none; empty stop strings never match. Cost: length of the text
// times number of stop strings.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lanner {

class StopMatcher {
 public:
  struct Step {
    std::string text;                 // safe to show
    std::optional<std::size_t> stop;  // which stop string was found, by its place in the list
  };

  explicit StopMatcher(std::vector<std::string> stops);

  /// After a stop string was found, returns the same stop and no text.
  Step push(std::string_view text);
  /// What was held back, when no stop string was found. The matcher must not be used afterwards.
  std::string finish();

 private:
  // One stop string, matched in the manner of Knuth, Morris and Pratt.
  struct Pattern {
    std::string text;
    std::vector<std::size_t> border;  // (text) length of the longest proper prefix of text[0, i] that is its suffix
    std::size_t matched = 0;          // how much of it the text so far ends with
  };
  static Pattern prepare(std::string text);
  static void advance(Pattern& pattern, char byte);

  std::vector<Pattern> patterns_;
  std::string held_;  // the end of the text: exactly the longest beginning of a stop string
  std::optional<std::size_t> found_;
};

}  // namespace lanner
