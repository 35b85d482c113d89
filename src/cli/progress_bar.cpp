#include "cli/progress_bar.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "cli/output.h"

namespace lanner::cli {
namespace {

constexpr auto kRedrawEvery = std::chrono::milliseconds(50);
constexpr int kBarColumns = 30;

int terminal_columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

std::string format_seconds(double seconds) {
  const auto whole = std::lround(seconds);
  return whole < 60 ? fmt::format("{} s", whole) : fmt::format("{}:{:02} min", whole / 60, whole % 60);
}

}  // namespace

std::string progress_line(const std::string& what, double share, double elapsed_seconds, int width) {
  share = std::clamp(share, 0.0, 1.0);
  std::string left;
  // The first percents say little about the rest.
  if (share >= 0.02 && share < 1.0) {
    left = fmt::format("  {} left", format_seconds(elapsed_seconds * (1.0 - share) / share));
  }
  const std::string end = fmt::format(" {:3.0f} %{}", share * 100.0, left);
  const int bar = std::min(kBarColumns, width - static_cast<int>(what.size() + end.size()) - 4);
  if (bar < 5) return (what + end).substr(0, static_cast<std::size_t>(std::max(width - 1, 0)));
  const auto full = static_cast<std::size_t>(share * bar);
  return fmt::format("{} [{}{}]{}", what, std::string(full, '='),
                     std::string(static_cast<std::size_t>(bar) - full, ' '), end);
}

ProgressBar::ProgressBar(std::string what)
    : what_(std::move(what)),
      enabled_(stderr_is_terminal()),
      start_(std::chrono::steady_clock::now()),
      drawn_(start_) {}

void ProgressBar::set(double share) {
  const auto now = std::chrono::steady_clock::now();
  if (!enabled_ || now - drawn_ < kRedrawEvery) return;  // work that takes less shows nothing at all
  drawn_ = now;
  visible_ = true;
  const double elapsed_seconds = std::chrono::duration<double>(now - start_).count();
  write_stderr(fmt::format("\r{}\x1b[K", progress_line(what_, share, elapsed_seconds, terminal_columns())));
}

void ProgressBar::clear() {
  if (visible_) write_stderr("\r\x1b[K");
  visible_ = false;
}

}  // namespace lanner::cli
