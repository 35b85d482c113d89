#pragma once
// Ctrl-C as something to wait for: a signal writes into a pipe that poll() can watch beside other descriptors.
//
// There is one per process, as there is one signal handler. Until install() is called Ctrl-C ends the program.

#include <signal.h>  // NOLINT(modernize-deprecated-headers): sigaction is POSIX, not in <csignal>

#include <atomic>
#include <string>

namespace lanner::cli {

class Interrupts {
 public:
  /// From now on SIGINT is counted instead of ending the program.
  static Interrupts& install();

  /// Readable while an interrupt has come that take() has not.
  int descriptor() const { return read_end_; }
  /// Whether one has come since the last call.
  bool take();

 private:
  Interrupts();
  const int read_end_;
};

enum class Wait { kReady, kInterrupted, kFailed };
/// Until stdin can be read, has ended, or Ctrl-C was pressed.
Wait wait_for_input(Interrupts& interrupts);

/// For work that wants a flag: as long as this lives, Ctrl-C sets it instead of ending the program. There is one at a
/// time, and none while an Interrupts is installed.
class InterruptFlag {
 public:
  InterruptFlag();
  ~InterruptFlag();
  InterruptFlag(const InterruptFlag&) = delete;
  InterruptFlag& operator=(const InterruptFlag&) = delete;

  const std::atomic<bool>& flag() const;
  /// Ends the program as Ctrl-C would have, so that a shell sees it.
  [[noreturn]] void end_program();

 private:
  struct sigaction before_;
};

/// For work that leaves something behind to go on with: as long as this lives, Ctrl-C ends the program at once with
/// kExitInterrupted, and where the file or folder `left` is there by then, says `line` on stderr. There is one at a
/// time; an InterruptFlag may live within it. Where Ctrl-C was ignored before, as under nohup, it stays so.
class ResumableWork {
 public:
  ResumableWork(std::string left, std::string line);
  ~ResumableWork();
  ResumableWork(const ResumableWork&) = delete;
  ResumableWork& operator=(const ResumableWork&) = delete;

 private:
  const std::string left_;
  const std::string line_;
  struct sigaction before_;
};

}  // namespace lanner::cli
