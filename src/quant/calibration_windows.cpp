#include "quant/calibration_windows.h"

#include <fmt/format.h>

#include <bit>

namespace lanner::quant {
namespace {

constexpr std::uint32_t kArraySeed = 19650218U;  // what seeding by an array begins with
constexpr std::size_t kShift = 397;

}  // namespace

PythonRandom::PythonRandom() : state_(kWords) {
  state_[0] = kArraySeed;
  for (std::uint32_t i = 1; i < kWords; ++i) {
    state_[i] = 1812433253U * (state_[i - 1] ^ (state_[i - 1] >> 30U)) + i;
  }
  // The array is the one word 0, so that neither its words nor their numbers add anything.
  std::size_t i = 1;
  const auto go_on = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  for (std::size_t k = 0; k < kWords; ++k, go_on()) {
    state_[i] ^= (state_[i - 1] ^ (state_[i - 1] >> 30U)) * 1664525U;
  }
  for (std::size_t k = 0; k + 1 < kWords; ++k, go_on()) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30U)) * 1566083941U)) - static_cast<std::uint32_t>(i);
  }
  state_[0] = 0x80000000U;
}

void PythonRandom::turn() {
  for (std::size_t i = 0; i < kWords; ++i) {
    const std::uint32_t mixed = (state_[i] & 0x80000000U) | (state_[(i + 1) % kWords] & 0x7FFFFFFFU);
    state_[i] = state_[(i + kShift) % kWords] ^ (mixed >> 1U) ^ ((mixed & 1U) != 0 ? 0x9908B0DFU : 0U);
  }
  place_ = 0;
}

std::uint32_t PythonRandom::next() {
  if (place_ == kWords) turn();
  std::uint32_t word = state_[place_++];
  word ^= word >> 11U;
  word ^= (word << 7U) & 0x9D2C5680U;
  word ^= (word << 15U) & 0xEFC60000U;
  return word ^ (word >> 18U);
}

std::uint32_t PythonRandom::at_most(std::uint32_t most) {
  const std::uint32_t count = most + 1;
  const int bits = std::bit_width(count);
  std::uint32_t drawn = count;
  while (drawn >= count) drawn = next() >> (32 - bits);
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
