#include "cli/signal_pipe.h"

#include <fcntl.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): sigaction is POSIX, not in <csignal>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "core/check.h"

namespace lanner::cli {
namespace {

// Written once, before the handler is installed.
int write_end = -1;

void on_signal(int /*signal*/) {
  const int saved = errno;
  write_to_signal_pipe();
  errno = saved;
}

}  // namespace

int pipe_of_signals(std::span<const int> signals) {
  LANNER_CHECK(write_end < 0);
  std::array<int, 2> ends{};
  LANNER_CHECK(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) == 0);
  write_end = ends[1];
  struct sigaction action{};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  for (const int signal : signals) LANNER_CHECK(::sigaction(signal, &action, nullptr) == 0);
  return ends[0];
}

void write_to_signal_pipe() {
  const char byte = 0;
  // A full pipe already says all there is to say.
  [[maybe_unused]] const ssize_t written = ::write(write_end, &byte, 1);
}

}  // namespace lanner::cli
