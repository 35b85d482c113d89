#pragma once
// Ctrl-C as something to wait for: a signal writes into a pipe that poll() can watch beside other descriptors.
//
// There is one per process, as there is one signal handler. Until install() is called Ctrl-C ends the program.

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
  int read_end_ = -1;
};

}  // namespace lanner::cli
