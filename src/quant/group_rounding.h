#pragma once
// How a group of consecutive columns of a row becomes codes of 4 bits with one scale in fp16 and one zero point:
//
//     code = clamp(round(w / scale) + zero, 0, 15),       so that  w ≈ scale * (code - zero)
//
// in fp32, with halves rounded to even; all of it with the scale as it is stored. With the least and greatest value of
// the group, of which 0 counts as one (LMDeploy does without, and loses groups of one sign, since their zero point does
// not fit 4 bits; all others have values of both signs and come out the same):
//
//     scale = fp16(max(greatest - least, 1e-5) / 15),     zero = clamp(-round(least / scale), 0, 15)
//
// and symmetric, with the greatest magnitude:
//
//     scale = fp16(max(2 * magnitude, 1e-5) / 15),        zero = 8

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "core/float16.h"

namespace lanner::quant {

/// Which columns are rounded together, and how.
struct Grouping {
  std::int64_t size = 0;  // columns of a group
  bool symmetric = false;
};

inline constexpr float kMostCode = 15.0F;
inline constexpr float kSymmetricZero = 8.0F;

/// Scale and zero of a group.
struct GroupRounding {
  Half stored;
  float scale = 0;
  float zero = 0;

  /// Not, where the scale does not fit fp16.
  bool finite() const { return std::isfinite(scale); }
  float code(float value) const { return std::clamp(std::nearbyint(value / scale) + zero, 0.0F, kMostCode); }
  /// What the value becomes.
  float rounded(float value) const { return (code(value) - zero) * scale; }
};

/// Of finite values.
GroupRounding rounding_of(std::span<const float> values, bool symmetric);

}  // namespace lanner::quant
