#pragma once
// Lines from the user: with editing and history where stdin is a terminal, else as they come.

#include <memory>
#include <string>
#include <string_view>

namespace lanner::cli {

class Interrupts;

class LineReader {
 public:
  struct Line {
    enum class Kind {
      kText,
      kEnd,          // of input; `text` is what stood there without a newline
      kInterrupted,  // Ctrl-C
    };
    Kind kind = Kind::kText;
    std::string text;  // without the newline
  };

  virtual ~LineReader() = default;
  /// Shows the prompt, where there is a terminal, and waits for a line.
  virtual Line read(std::string_view prompt) = 0;
};

/// Editing by libedit on a terminal, with the history in $XDG_STATE_HOME/lanner/chat_history (else
/// ~/.local/state/…), readable by the user alone; a history that cannot be kept is no error.
std::unique_ptr<LineReader> make_line_reader(Interrupts& interrupts);

}  // namespace lanner::cli
