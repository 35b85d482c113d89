#pragma once
// Which pieces of a text a model is calibrated with: the same ones as LMDeploy takes, so that results can be compared.
//
// Each of `samples` windows of `seqlen` tokens begins at a random place. The places are those of Python's
// random.seed(0) and random.randint(0, tokens - seqlen): Mersenne twister (Matsumoto and Nishimura 1998) seeded by an
// array, and of its numbers the highest bits, drawn again where they are too large.

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "lanner/status.h"

namespace lanner::quant {

/// Views of `tokens`. kInvalidArgument where the text is shorter than one window.
Result<std::vector<std::span<const std::int32_t>>> draw_windows(std::span<const std::int32_t> tokens,
                                                                std::int64_t samples, std::int64_t seqlen);

/// Python's random.seed(0), then random.randint(0, most) as often as asked. 0 <= most < 2^32 - 1.
class PythonRandom {
 public:
  PythonRandom();
  std::uint32_t at_most(std::uint32_t most);

 private:
  std::mt19937 generator_;
};

}  // namespace lanner::quant
