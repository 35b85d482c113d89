#pragma once
// What a user says at once: lines up to an empty one.

#include <string>
#include <string_view>

namespace lanner::cli {

class LineReader;

struct Block {
  enum class Kind {
    kText,
    kEnd,          // of input; `text` is what stood there without an empty line
    kInterrupted,  // Ctrl-C
  };
  Kind kind = Kind::kText;
  std::string text;
};

/// Prompts, where there is a terminal, and waits for a block.
Block read_block(LineReader& lines);

/// Without blanks and line ends around it.
std::string_view trimmed(std::string_view text);

}  // namespace lanner::cli
