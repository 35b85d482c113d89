#include "quant/calibration_windows.h"

#include <fmt/format.h>

#include <bit>

namespace lanner::quant {
namespace {

constexpr std::size_t kWords = std::mt19937::state_size;

/// The state of a Mersenne twister that is seeded by an array, as std::mt19937 takes it from a seed sequence.
struct PythonSeed {
  using result_type = std::uint_least32_t;

  template <typename Word>
  static void generate(Word state, Word /*end*/) {
    state[0] = 19650218U;  // what seeding by an array begins with
    for (std::uint32_t i = 1; i < kWords; ++i) {
      state[i] = 1812433253U * (state[i - 1] ^ (state[i - 1] >> 30U)) + i;
    }
    // The array is the one word 0, so that neither its words nor their numbers add anything.
    std::size_t i = 1;
    const auto go_on = [&] {
      if (++i < kWords) return;
      state[0] = state[kWords - 1];
      i = 1;
    };
    for (std::size_t k = 0; k < kWords; ++k, go_on()) {
      state[i] ^= (state[i - 1] ^ (state[i - 1] >> 30U)) * 1664525U;
    }
    for (std::size_t k = 0; k + 1 < kWords; ++k, go_on()) {
      state[i] = (state[i] ^ ((state[i - 1] ^ (state[i - 1] >> 30U)) * 1566083941U)) - static_cast<std::uint32_t>(i);
    }
    state[0] = 0x80000000U;
  }
};

std::mt19937 python_generator() {
  PythonSeed seed;
  return std::mt19937(seed);
}

}  // namespace

PythonRandom::PythonRandom() : generator_(python_generator()) {}

std::uint32_t PythonRandom::at_most(std::uint32_t most) {
  const std::uint32_t count = most + 1;
  const int bits = std::bit_width(count);
  std::uint32_t drawn = count;
  while (drawn >= count) drawn = static_cast<std::uint32_t>(generator_()) >> (32 - bits);
  return drawn;
}

Result<std::vector<std::span<const std::int32_t>>> draw_windows(std::span<const std::int32_t> tokens,
                                                                std::int64_t samples, std::int64_t seqlen) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  if (count < seqlen) {
    return invalid_argument(
        fmt::format("the calibration text has {} tokens, a sample {}; name a longer text, or set "
                    "--calib-seqlen lower",
                    count, seqlen));
  }
  PythonRandom random;
  std::vector<std::span<const std::int32_t>> windows;
  for (std::int64_t i = 0; i < samples; ++i) {
    const std::uint32_t begin = random.at_most(static_cast<std::uint32_t>(count - seqlen));
    windows.push_back(tokens.subspan(begin, static_cast<std::size_t>(seqlen)));
  }
  return windows;
}

}  // namespace lanner::quant
