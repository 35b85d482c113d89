#include "cli/interrupts.h"

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

void on_interrupt(int /*signal*/) {
  const int saved = errno;
  const char byte = 0;
  // A full pipe already says all there is to say.
  if (::write(write_end, &byte, 1) < 0) errno = saved;
  errno = saved;
}

}  // namespace

Interrupts& Interrupts::install() {
  static Interrupts interrupts;
  return interrupts;
}

Interrupts::Interrupts() {
  std::array<int, 2> ends{};
  LANNER_CHECK(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) == 0);
  read_end_ = ends[0];
  write_end = ends[1];
  struct sigaction action{};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  LANNER_CHECK(::sigaction(SIGINT, &action, nullptr) == 0);
}

bool Interrupts::take() {
  std::array<char, 64> bytes{};
  bool any = false;
  while (::read(read_end_, bytes.data(), bytes.size()) > 0) any = true;
  return any;
}

}  // namespace lanner::cli
