// Rotary frequencies with their scalings. Formulas: RoFormer (arXiv 2104.09864), position interpolation (2306.15595),
// YaRN (2309.00071), LongRoPE (2402.13753), dynamic NTK and Llama 3.1's smoothed scaling as Transformers computes them.

#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/decoder.h"

namespace lanner::model {
namespace {

/// Long wavelengths are divided by `factor`, short ones kept, those between blended.
float llama3_frequency(const RopeSpec& rope, double original, float frequency) {
  const double wavelength = 2.0 * std::numbers::pi / static_cast<double>(frequency);
  const double low_wavelength = original / rope.low_freq_factor;
  const double high_wavelength = original / rope.high_freq_factor;
  if (wavelength < high_wavelength) return frequency;
  const float scaled = static_cast<float>(static_cast<double>(frequency) / rope.factor);
  if (wavelength > low_wavelength) return scaled;
  const double smooth = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return static_cast<float>((1.0 - smooth) * static_cast<double>(scaled) + smooth * static_cast<double>(frequency));
}

/// The dimension whose wavelength makes `rotations` turns within the original context.
double yarn_dimension(const RopeSpec& rope, double original, double rotations) {
  const auto dim = static_cast<double>(rope.rotary_dim);
  return dim * std::log(original / (rotations * 2.0 * std::numbers::pi)) / (2.0 * std::log(rope.theta));
}

void apply_yarn(const RopeSpec& rope, double original, RopeFrequencies& result) {
  const double last = static_cast<double>(rope.rotary_dim) - 1;
  const double low = std::max(std::floor(yarn_dimension(rope, original, rope.beta_fast)), 0.0);
  double high = std::min(std::ceil(yarn_dimension(rope, original, rope.beta_slow)), last);
  if (low == high) high += 0.001;  // as Transformers: no division by zero
  for (std::size_t i = 0; i < result.inverse.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const double keep = 1.0 - ramp;
    const auto frequency = static_cast<double>(result.inverse[i]);
    result.inverse[i] = static_cast<float>(frequency / rope.factor * (1.0 - keep) + frequency * keep);
  }
  const double derived = rope.factor <= 1.0 ? 1.0 : 0.1 * std::log(rope.factor) + 1.0;
  result.scale = static_cast<float>(rope.attention_factor > 0 ? rope.attention_factor : derived);
}

/// The base that stretches the longest wavelength to `session_len`. Transformers raises it as a sequence grows; the
/// cache holds keys that are rotated already, so here every sequence has the base of the longest one.
double dynamic_base(const RopeSpec& rope, std::int64_t max_position, std::int64_t session_len) {
  if (session_len <= max_position) return rope.theta;
  const auto dim = static_cast<double>(rope.rotary_dim);
  const double stretch = static_cast<double>(session_len) / static_cast<double>(max_position);
  return rope.theta * std::pow(rope.factor * stretch - (rope.factor - 1.0), dim / (dim - 2.0));
}

/// Each frequency has a divisor of its own. Transformers changes from the short list to the long one when a sequence
/// outgrows the original context; here every sequence has the list of the longest one, as with dynamic NTK.
void apply_longrope(const RopeSpec& rope, double original, std::int64_t session_len, RopeFrequencies& result) {
  const bool is_long = static_cast<double>(session_len) > original;
  const std::vector<double>& factors = is_long ? rope.long_factors : rope.short_factors;
  for (std::size_t i = 0; i < result.inverse.size(); ++i) {
    const auto exponent = static_cast<float>(2 * i) / static_cast<float>(rope.rotary_dim);
    const auto power = static_cast<float>(std::pow(rope.theta, static_cast<double>(exponent)));
    result.inverse[i] = 1.0F / (static_cast<float>(factors[i]) * power);
  }
  const double derived = rope.factor <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(rope.factor) / std::log(original));
  result.scale = static_cast<float>(rope.attention_factor > 0 ? rope.attention_factor : derived);
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeSpec& rope, std::int64_t max_position, std::int64_t session_len) {
  RopeFrequencies result;
  const auto dim = static_cast<double>(rope.rotary_dim);
  const auto original = static_cast<double>(rope.original_max_position > 0 ? rope.original_max_position : max_position);
  const double base = rope.kind == RopeKind::kDynamicNtk ? dynamic_base(rope, max_position, session_len) : rope.theta;
  for (std::int64_t i = 0; i < rope.rotary_dim / 2; ++i) {
    // The power in fp32 steps as PyTorch takes them, so that large positions turn by the same angle.
    const auto exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    auto frequency = 1.0F / static_cast<float>(std::pow(base, static_cast<double>(exponent)));
    if (rope.kind == RopeKind::kLinear) frequency = static_cast<float>(static_cast<double>(frequency) / rope.factor);
    if (rope.kind == RopeKind::kLlama3) frequency = llama3_frequency(rope, original, frequency);
    result.inverse.push_back(frequency);
  }
  if (rope.kind == RopeKind::kYarn) apply_yarn(rope, original, result);
  if (rope.kind == RopeKind::kLongRope) {
    apply_longrope(rope, original, session_len > 0 ? session_len : max_position, result);
  }
  return result;
}

}  // namespace lanner::model
