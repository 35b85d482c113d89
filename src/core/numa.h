#pragma once
// Memory spread over the memory nodes of a machine with several sockets.
//
// The system puts a page where the thread runs that touches it first: weights that one thread has read lie on its
// socket alone, and threads on the others read them from there. Interleaved, every thread reads a share of every matrix
// from each node: not the best for any of them, but all of the machine's memory channels at once.
//
//   {
//     LANNER_ASSIGN_OR_RETURN(const InterleavedMemory interleaved, InterleavedMemory::begin());
//     …  // what this thread touches first is spread, and what threads do that it starts here, as long as they live
//   }    // the thread is as it was

#include <array>
#include <cstddef>

#include "lanner/status.h"

namespace lanner {

class InterleavedMemory {
 public:
  /// Over all nodes that this process may use. kUnsupported, with the cause, where the system has no such thing or a
  /// sandbox forbids it. A machine with one node has nothing to spread and answers well.
  static Result<InterleavedMemory> begin();
  ~InterleavedMemory();
  InterleavedMemory(InterleavedMemory&& other) noexcept;
  InterleavedMemory& operator=(InterleavedMemory&&) = delete;
  InterleavedMemory(const InterleavedMemory&) = delete;
  InterleavedMemory& operator=(const InterleavedMemory&) = delete;

  /// Nodes that memory is spread over.
  int nodes() const { return nodes_; }

 private:
  static constexpr std::size_t kMostNodes = 1024;  // as many as Linux can be built for
  using NodeMask = std::array<unsigned long, kMostNodes / (8 * sizeof(unsigned long))>;

  InterleavedMemory() = default;

  bool active_ = false;
  int nodes_ = 0;
  int old_mode_ = 0;
  NodeMask old_nodes_{};
};

}  // namespace lanner
