#include "cli/shutdown_signals.h"

#include <fcntl.h>
#include <poll.h>
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
  const char byte = 0;
  // A full pipe already says all there is to say.
  [[maybe_unused]] const ssize_t written = ::write(write_end, &byte, 1);
  errno = saved;
}

}  // namespace

ShutdownSignals& ShutdownSignals::install() {
  static ShutdownSignals signals;
  return signals;
}

ShutdownSignals::ShutdownSignals() {
  std::array<int, 2> ends{};
  LANNER_CHECK(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) == 0);
  read_end_ = ends[0];
  write_end = ends[1];
  struct sigaction action{};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  LANNER_CHECK(::sigaction(SIGTERM, &action, nullptr) == 0);
  LANNER_CHECK(::sigaction(SIGINT, &action, nullptr) == 0);
}

void ShutdownSignals::wait(std::chrono::milliseconds time) const {
  pollfd watched{read_end_, POLLIN, 0};
  ::poll(&watched, 1, static_cast<int>(time.count()));
}

bool ShutdownSignals::take() {
  // One at a time: a second signal means something else than the first.
  char byte = 0;
  return ::read(read_end_, &byte, 1) > 0;
}

void ShutdownSignals::raise() { on_signal(SIGTERM); }

}  // namespace lanner::cli
