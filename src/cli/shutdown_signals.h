#pragma once
// SIGTERM and Ctrl-C as something to wait for. One per process; until install() is called both end the program.

#include <chrono>

namespace lanner::cli {

class ShutdownSignals {
 public:
  static ShutdownSignals& install();

  /// Until a signal has come that take() has not, or the time is over.
  void wait(std::chrono::milliseconds time) const;
  /// Whether one has come since the last call.
  bool take();
  /// As if one had come; from any thread.
  static void raise();

 private:
  ShutdownSignals();
  const int read_end_;
};

}  // namespace lanner::cli
