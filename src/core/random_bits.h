#pragma once
// Numbers that differ from run to run: for seeds that nobody chose, and for ids. Not for secrets.

#include <cstdint>
#include <random>

namespace lanner {

/// 64 bits of a generator that each thread seeds once from the system: a std::random_device asks the processor what
/// it can do whenever one is made, which under a hypervisor takes longer than answering a small request.
inline std::uint64_t random_bits() {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  return generator();
}

}  // namespace lanner
