#include "core/numa.h"

#include <fmt/format.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <system_error>
#include <utility>

namespace lanner {
namespace {

// libnuma would be one more library for two system calls.
long get_policy(int* mode, unsigned long* nodes, unsigned long bits, unsigned long flags) {
  return ::syscall(SYS_get_mempolicy, mode, nodes, bits, nullptr, flags);
}
long set_policy(int mode, const unsigned long* nodes, unsigned long bits) {
  return ::syscall(SYS_set_mempolicy, mode, nodes, bits);
}

Status failure(const char* what) {
  return unsupported(fmt::format("memory cannot be interleaved: {}: {}", what, std::generic_category().message(errno)));
}

}  // namespace

Result<InterleavedMemory> InterleavedMemory::begin() {
  InterleavedMemory memory;
  NodeMask allowed{};
  if (get_policy(&memory.old_mode_, memory.old_nodes_.data(), kMostNodes, 0) != 0 ||
      get_policy(nullptr, allowed.data(), kMostNodes, MPOL_F_MEMS_ALLOWED) != 0) {
    return failure("get_mempolicy");
  }
  for (const unsigned long word : allowed) memory.nodes_ += std::popcount(word);
  // The system takes one bit less than it is told.
  if (set_policy(MPOL_INTERLEAVE, allowed.data(), kMostNodes + 1) != 0) return failure("set_mempolicy");
  memory.active_ = true;
  return memory;
}

InterleavedMemory::InterleavedMemory(InterleavedMemory&& other) noexcept
    : active_(std::exchange(other.active_, false)),
      nodes_(other.nodes_),
      old_mode_(other.old_mode_),
      old_nodes_(other.old_nodes_) {}

InterleavedMemory::~InterleavedMemory() {
  if (active_) set_policy(old_mode_, old_nodes_.data(), kMostNodes + 1);
}

}  // namespace lanner
