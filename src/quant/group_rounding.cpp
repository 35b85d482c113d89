#include "quant/group_rounding.h"

namespace lanner::quant {

GroupRounding rounding_of(std::span<const float> values, bool symmetric) {
  constexpr float kLeastRange = 1e-5F;
  float least = 0;
  float greatest = 0;
  for (const float value : values) {
    least = std::min(least, value);
    greatest = std::max(greatest, value);
  }
  const float range = symmetric ? 2 * std::max(-least, greatest) : greatest - least;
  GroupRounding rounding{.stored = to_half(std::max(range, kLeastRange) / kMostCode)};
  rounding.scale = to_float(rounding.stored);
  rounding.zero = symmetric ? kSymmetricZero : std::clamp(-std::nearbyint(least / rounding.scale), 0.0F, kMostCode);
  return rounding;
}

}  // namespace lanner::quant
