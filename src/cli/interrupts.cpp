#include "cli/interrupts.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>

#include "cli/signal_pipe.h"
#include "core/check.h"

namespace lanner::cli {
namespace {

// Lock-free, so that a signal handler may set it.
std::atomic<bool> interrupt_flag = false;
static_assert(std::atomic<bool>::is_always_lock_free);

void on_flagged_interrupt(int /*signal*/) { interrupt_flag.store(true, std::memory_order_relaxed); }

}  // namespace

Interrupts& Interrupts::install() {
  static Interrupts interrupts;
  return interrupts;
}

Interrupts::Interrupts() : read_end_(pipe_of_signals(std::array{SIGINT})) {}

bool Interrupts::take() {
  std::array<char, 64> bytes{};
  bool any = false;
  while (::read(read_end_, bytes.data(), bytes.size()) > 0) any = true;
  return any;
}

Wait wait_for_input(Interrupts& interrupts) {
  std::array<pollfd, 2> watched{{{STDIN_FILENO, POLLIN, 0}, {interrupts.descriptor(), POLLIN, 0}}};
  while (::poll(watched.data(), watched.size(), -1) < 0) {
    if (errno != EINTR && errno != EAGAIN) return Wait::kFailed;
  }
  if (watched[1].revents != 0 && interrupts.take()) return Wait::kInterrupted;
  return Wait::kReady;
}

InterruptFlag::InterruptFlag() : before_{} {
  interrupt_flag = false;
  struct sigaction action{};
  action.sa_handler = on_flagged_interrupt;
  sigemptyset(&action.sa_mask);
  LANNER_CHECK(::sigaction(SIGINT, &action, &before_) == 0);
}

InterruptFlag::~InterruptFlag() { ::sigaction(SIGINT, &before_, nullptr); }

const std::atomic<bool>& InterruptFlag::flag() const { return interrupt_flag; }

void InterruptFlag::end_program() {
  struct sigaction action{};
  action.sa_handler = SIG_DFL;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::raise(SIGINT);
  std::_Exit(130);  // what a shell makes of it, should SIGINT be blocked
}

}  // namespace lanner::cli
