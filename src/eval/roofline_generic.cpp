// Peak loops in plain C++: what any processor can run.

#include <array>
#include <cstring>

#include "eval/roofline_loops.h"

namespace lanner::eval {
namespace {

constexpr std::size_t kChains = 32;  // eight SSE registers

float float32(std::int64_t rounds) {
  std::array<float, kChains> sums{};
  float factor = 0.999F;
  float addend = 0.001F;
  for (std::int64_t round = 0; round < rounds; ++round) {
    for (float& sum : sums) sum = sum * factor + addend;
  }
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

std::int32_t int8(std::int64_t rounds) {
  alignas(64) std::array<std::uint8_t, kChains> left{};
  alignas(64) std::array<std::int8_t, kChains> right{};
  std::array<std::int32_t, kChains> sums{};
  left.fill(3);
  right.fill(-2);
  for (std::int64_t round = 0; round < rounds; ++round) {
    asm volatile("" : "+m"(left), "+m"(right));  // the bytes may have changed: multiply again
    for (std::size_t i = 0; i < kChains; ++i) sums[i] += std::int32_t{left[i]} * std::int32_t{right[i]};
  }
  std::int32_t total = 0;
  for (const std::int32_t sum : sums) total ^= sum;
  return total;
}

std::uint64_t read(const std::byte* data, std::int64_t bytes) {
  const std::int64_t stream = bytes / 4;
  std::array<std::uint64_t, 4> sums{};
  for (std::int64_t at = 0; at < stream; at += 64) {
    for (std::int64_t s = 0; s < 4; ++s) {
      const std::byte* line = data + s * stream + at;
      __builtin_prefetch(line + 4096);
      std::array<std::uint64_t, 8> words;
      std::memcpy(words.data(), line, sizeof(words));
      for (const std::uint64_t word : words) sums[static_cast<std::size_t>(s)] += word;
    }
  }
  return sums[0] + sums[1] + sums[2] + sums[3];
}

/// One stream, which the processor prefetches by itself.
std::uint64_t read_stream(const std::byte* data, std::int64_t bytes) {
  std::array<std::uint64_t, 8> sums{};
  for (std::int64_t at = 0; at < bytes; at += 64) {
    std::array<std::uint64_t, 8> words;
    std::memcpy(words.data(), data + at, sizeof(words));
    for (std::size_t i = 0; i < words.size(); ++i) sums[i] += words[i];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

const RooflineLoops& generic_roofline_loops() {
  static constexpr RooflineLoops kLoops{.float32 = float32,
                                        .float32_ops_per_round = 2 * kChains,
                                        .int8 = int8,
                                        .int8_ops_per_round = 2 * kChains,
                                        .read = read,
                                        .read_stream = read_stream};
  return kLoops;
}

}  // namespace lanner::eval
