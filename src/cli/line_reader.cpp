#include "cli/line_reader.h"

#include <unistd.h>

#include <array>
#include <cerrno>

#include "cli/edit_line_reader.h"
#include "cli/interrupts.h"
#include "cli/output.h"

namespace lanner::cli {
namespace {

/// Lines of a pipe or a file, and of a terminal that libedit cannot serve.
class PlainLineReader final : public LineReader {
 public:
  PlainLineReader(Interrupts& interrupts, bool show_prompt) : interrupts_(interrupts), show_prompt_(show_prompt) {}

  Line read(std::string_view prompt) override {
    if (show_prompt_ && !write_stdout(prompt).ok()) return {Line::Kind::kEnd, {}};
    while (true) {
      const std::size_t newline = buffer_.find('\n', searched_);
      if (newline != std::string::npos) return {Line::Kind::kText, cut(newline + 1, newline)};
      searched_ = buffer_.size();
      const Wait result = wait_for_input(interrupts_);
      if (result == Wait::kInterrupted) return {Line::Kind::kInterrupted, {}};
      if (result == Wait::kFailed || !fill()) return {Line::Kind::kEnd, cut(buffer_.size(), buffer_.size())};
    }
  }

 private:
  /// The first `length` bytes, while `consumed` bytes leave the buffer.
  std::string cut(std::size_t consumed, std::size_t length) {
    std::string text = buffer_.substr(0, length);
    if (text.ends_with('\r')) text.pop_back();
    buffer_.erase(0, consumed);
    searched_ = 0;
    return text;
  }

  bool fill() {
    std::array<char, 65536> bytes;  // NOLINT(cppcoreguidelines-pro-type-member-init): read() fills it
    const ssize_t count = ::read(STDIN_FILENO, bytes.data(), bytes.size());
    if (count < 0) return errno == EINTR || errno == EAGAIN;
    buffer_.append(bytes.data(), static_cast<std::size_t>(count));
    return count > 0;
  }

  Interrupts& interrupts_;
  const bool show_prompt_;
  std::string buffer_;
  std::size_t searched_ = 0;  // no newline before it
};

}  // namespace

std::unique_ptr<LineReader> make_line_reader(Interrupts& interrupts) {
  if (!stdin_is_terminal()) return std::make_unique<PlainLineReader>(interrupts, false);
  if (auto reader = make_edit_line_reader(interrupts)) return reader;
  return std::make_unique<PlainLineReader>(interrupts, true);
}

}  // namespace lanner::cli
