#include "eval/roofline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "core/processors.h"

namespace lanner::eval {
namespace {

constexpr std::int64_t kSmallBuffer = std::int64_t{64} << 20;
constexpr int kAttempts = 5;  // other programs share the machine

TEST(Roofline, IsPositiveAndFiniteForEachInstructionSet) {
  for (const CpuIsa isa : known_cpu_isas()) {
    if (isa > detected_cpu_isa()) continue;
    const auto limits = measure_roofline({.threads = 1, .isa = isa, .buffer_bytes = kSmallBuffer});
    ASSERT_TRUE(limits.ok()) << limits.status().message();
    for (const double value : {limits->read_bytes_per_s, limits->float32_ops_per_s, limits->int8_ops_per_s}) {
      EXPECT_TRUE(std::isfinite(value));
      EXPECT_GT(value, 1e7) << cpu_isa_name(isa);   // slower than a processor of 1995: not measured at all
      EXPECT_LT(value, 1e14) << cpu_isa_name(isa);  // faster than any: the compiler left the work out
    }
  }
}

/// The best of several measurements, each figure for itself.
Roofline best_of(Roofline best, const Roofline& other) {
  best.read_bytes_per_s = std::max(best.read_bytes_per_s, other.read_bytes_per_s);
  best.float32_ops_per_s = std::max(best.float32_ops_per_s, other.float32_ops_per_s);
  best.int8_ops_per_s = std::max(best.int8_ops_per_s, other.int8_ops_per_s);
  return best;
}

bool processors_are_taken() {
  double load = 0;  // the last minute's
  return getloadavg(&load, 1) == 1 && load > available_processors();
}

TEST(Roofline, TwoThreadsAreNotMuchSlowerThanOne) {
  if (available_processors() < 2) GTEST_SKIP() << "one processor";
  Roofline one;
  Roofline two;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto one_now = measure_roofline({.threads = 1, .buffer_bytes = kSmallBuffer});
    const auto two_now = measure_roofline({.threads = 2, .buffer_bytes = kSmallBuffer});
    ASSERT_TRUE(one_now.ok() && two_now.ok());
    EXPECT_EQ(two_now->threads, 2);
    one = best_of(one, *one_now);
    two = best_of(two, *two_now);
  }
  const double read = two.read_bytes_per_s / one.read_bytes_per_s;
  const double float32 = two.float32_ops_per_s / one.float32_ops_per_s;
  const double int8 = two.int8_ops_per_s / one.int8_ops_per_s;
  std::printf("two threads / one: read %.2f, float32 %.2f, int8 %.2f\n", read, float32, int8);
  if (std::min({read, float32, int8}) >= 0.8) return;
  // Two threads finish when the later one does: with other programs on the processors nothing follows from that.
  if (processors_are_taken()) GTEST_SKIP() << "other programs use the processors; this needs two of its own";
  ADD_FAILURE() << "two threads are slower than one on a machine with free processors";
}

TEST(Roofline, RefusesAnInstructionSetThatIsNotThere) {
  for (const CpuIsa isa : known_cpu_isas()) {
    if (isa <= detected_cpu_isa()) continue;
    EXPECT_EQ(measure_roofline({.isa = isa}).status().code(), StatusCode::kInvalidArgument) << cpu_isa_name(isa);
  }
}

}  // namespace
}  // namespace lanner::eval
