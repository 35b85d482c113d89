#include "cli/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "cli/verbs.h"
#include "core/write_all.h"

namespace lanner::cli {
namespace {

bool write_text(int descriptor, std::string_view text) { return write_all(descriptor, std::as_bytes(std::span(text))); }

void say(std::string_view kind, std::string_view message) {
  std::string line = printable(message);
  for (char& c : line) {
    if (c == '\n') c = ' ';
  }
  write_stderr(fmt::format("lanner: {}: {}\n", kind, line));
}

}  // namespace

Status write_stdout(std::string_view text) {
  if (write_text(STDOUT_FILENO, text)) return {};
  if (errno == EPIPE) return {StatusCode::kCancelled, "nobody reads stdout"};
  return io_error(fmt::format("cannot write to stdout: {}", std::strerror(errno)));
}

void write_stderr(std::string_view text) { write_text(STDERR_FILENO, text); }

bool stdin_is_terminal() { return ::isatty(STDIN_FILENO) == 1; }
bool stdout_is_terminal() { return ::isatty(STDOUT_FILENO) == 1; }
bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

std::string printable(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F) continue;
    // U+0080 to U+009F, which some terminals take for escape sequences.
    if (byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0) {
      ++i;
      continue;
    }
    clean += text[i];
  }
  return clean;
}

int report_write(const Status& status) {
  return status.ok() || status.code() == StatusCode::kCancelled ? kExitOk : report(status);
}

std::string format_bytes(double bytes) {
  constexpr std::array kUnits{"B", "KB", "MB", "GB", "TB"};
  std::size_t unit = 0;
  while (bytes >= 1000.0 && unit + 1 < kUnits.size()) {
    bytes /= 1000.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} {}", bytes, kUnits[unit]) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

int report(const Status& status) {
  say("error", status.message());
  return kExitFailure;
}

int exit_code(const Status& status) { return status.ok() ? kExitOk : report(status); }

void warn(std::string_view message) { say("warning", message); }
void note(std::string_view message) { say("note", message); }

Status not_yet(const std::string& what) {
  return unsupported(fmt::format("{} is not available yet in this version", what));
}

}  // namespace lanner::cli
