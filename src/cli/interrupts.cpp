#include "cli/interrupts.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "cli/output.h"
#include "cli/signal_pipe.h"
#include "cli/verbs.h"
#include "core/check.h"

namespace lanner::cli {
namespace {

// Lock-free, so that a signal handler may set it.
std::atomic<bool> interrupt_flag = false;
static_assert(std::atomic<bool>::is_always_lock_free);

void on_flagged_interrupt(int /*signal*/) { interrupt_flag.store(true, std::memory_order_relaxed); }

// Of the ResumableWork that lives, for its handler: C strings of it.
std::atomic<const char*> work_left = nullptr;
std::atomic<const char*> work_line = nullptr;
static_assert(std::atomic<const char*>::is_always_lock_free);

/// Calls nothing that a signal handler may not.
void on_interrupted_work(int /*signal*/) {
  const char* left = work_left.load();
  const char* line = work_line.load();
  if (left != nullptr && line != nullptr && ::access(left, F_OK) == 0) {
    const ssize_t written = ::write(STDERR_FILENO, line, std::strlen(line));
    static_cast<void>(written);  // nobody is left to be told
  }
  ::_exit(kExitInterrupted);
}

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
  std::_Exit(kExitInterrupted);  // what a shell makes of it, should SIGINT be blocked
}

ResumableWork::ResumableWork(std::string left, std::string line)
    // The bar that shows how far it has come is wiped first.
    : left_(std::move(left)), line_((stderr_is_terminal() ? "\r\x1b[K" : "") + std::move(line) + "\n"), before_{} {
  LANNER_CHECK(::sigaction(SIGINT, nullptr, &before_) == 0);
  if (before_.sa_handler == SIG_IGN) return;
  work_left = left_.c_str();
  work_line = line_.c_str();
  struct sigaction action{};
  action.sa_handler = on_interrupted_work;
  sigemptyset(&action.sa_mask);
  LANNER_CHECK(::sigaction(SIGINT, &action, nullptr) == 0);
}

ResumableWork::~ResumableWork() {
  ::sigaction(SIGINT, &before_, nullptr);
  work_left = nullptr;
  work_line = nullptr;
}

}  // namespace lanner::cli
