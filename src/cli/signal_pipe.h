#pragma once
// Signals as bytes of a pipe, which poll() can watch beside other descriptors.

#include <span>

namespace lanner::cli {

/// From now on each of these signals writes a byte instead of ending the program. Returns the end to read from, which
/// does not block. Once per process: there is one handler.
int pipe_of_signals(std::span<const int> signals);
/// As if one had come; from any thread.
void write_to_signal_pipe();

}  // namespace lanner::cli
