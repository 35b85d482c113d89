// Interleaved memory: what the system says of threads, asked for past the class under test.

#include "core/numa.h"

#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>

namespace lanner {
namespace {

/// The policy of the calling thread; -1 where the system does not tell.
int policy() {
  int mode = -1;
  if (::syscall(SYS_get_mempolicy, &mode, nullptr, 0UL, nullptr, 0UL) != 0) return -1;
  return mode;
}

TEST(InterleavedMemory, LastsForItsScopeAndForThreadsThatStartInIt) {
  const int before = policy();
  std::thread inside;
  int of_thread = -1;
  {
    const auto memory = InterleavedMemory::begin();
    if (!memory.ok()) {  // a sandbox that forbids it
      EXPECT_EQ(memory.status().code(), StatusCode::kUnsupported);
      EXPECT_TRUE(memory.status().message().starts_with("memory cannot be interleaved: "));
      EXPECT_EQ(policy(), before);
      return;
    }
    EXPECT_GE(memory->nodes(), 1);
    EXPECT_EQ(policy(), MPOL_INTERLEAVE);
    inside = std::thread([&] { of_thread = policy(); });
    inside.join();
  }
  EXPECT_EQ(of_thread, MPOL_INTERLEAVE);
  EXPECT_EQ(policy(), before);
}

TEST(InterleavedMemory, ThreadsThatStartLaterHaveWhatTheirsHas) {
  const int before = policy();
  {
    const auto memory = InterleavedMemory::begin();
  }
  int of_thread = -2;
  std::thread([&] { of_thread = policy(); }).join();
  EXPECT_EQ(of_thread, before);
}

}  // namespace
}  // namespace lanner
