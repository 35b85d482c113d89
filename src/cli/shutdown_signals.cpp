#include "cli/shutdown_signals.h"

#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): as signal_pipe.cpp
#include <unistd.h>

#include <array>

#include "cli/signal_pipe.h"

namespace lanner::cli {

ShutdownSignals& ShutdownSignals::install() {
  static ShutdownSignals signals;
  return signals;
}

ShutdownSignals::ShutdownSignals() : read_end_(pipe_of_signals(std::array{SIGTERM, SIGINT})) {}

void ShutdownSignals::wait(std::chrono::milliseconds time) const {
  pollfd watched{read_end_, POLLIN, 0};
  ::poll(&watched, 1, static_cast<int>(time.count()));
}

bool ShutdownSignals::take() {
  // One at a time: a second signal means something else than the first.
  char byte = 0;
  return ::read(read_end_, &byte, 1) > 0;
}

void ShutdownSignals::raise() { write_to_signal_pipe(); }

}  // namespace lanner::cli
