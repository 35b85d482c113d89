// Llama (arXiv 2302.13971, 2407.21783) and what shares its class: Yi, Vicuna, CodeLlama, TinyLlama, SmolLM. Pre-norm
// RMSNorm, rotary grouped-query attention, gated MLP. Field names and defaults are those of Transformers' LlamaConfig.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {
namespace {

/// Llama 3's frequency scaling in a GGUF is not four numbers in the metadata but the tensor they lead to:
/// rope_freqs.weight, one divisor a frequency. All Llama 3.1 to 3.3 files follow low 1, high 4, original context
/// 8192; the factor is the largest divisor. The tensor is compared with what those give, and refused if it differs.
Status read_rope_divisors(const Checkpoint& checkpoint, RopeSpec& rope_now) {
  constexpr std::string_view kName = "rope_freqs.weight";
  if (!checkpoint.has_tensor(kName)) return {};
  const std::int64_t count = rope_now.rotary_dim / 2;
  LANNER_ASSIGN_OR_RETURN(const std::vector<float> divisors, checkpoint.vector(kName, count));
  double factor = 1.0;
  for (const float divisor : divisors) factor = std::max(factor, static_cast<double>(divisor));
  RopeSpec rope = rope_now;
  rope.kind = RopeKind::kLlama3;
  rope.factor = factor;
  rope.original_max_position = 8192;
  const double original = static_cast<double>(rope.original_max_position);
  bool equal = rope_now.kind == RopeKind::kDefault;
  for (std::int64_t i = 0; i < count; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(rope.rotary_dim);
    const double wavelength = 2.0 * M_PI * std::pow(rope.theta, exponent);
    const double smooth =
        (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    double expected = 1.0 / ((1.0 - smooth) / factor + smooth);
    if (wavelength < original / rope.high_freq_factor) expected = 1.0;
    if (wavelength > original / rope.low_freq_factor) expected = factor;
    const auto divisor = static_cast<double>(divisors[static_cast<std::size_t>(i)]);
    equal = equal && std::abs(divisor - expected) <= 1e-4 * expected;
  }
  if (!equal) {
    return unsupported(fmt::format("{}: {}: is not the frequency scaling of Llama 3", checkpoint.path(), kName));
  }
  if (factor > 1.0) rope_now = rope;
  return {};
}

/// A folder's Llama attends to everything; fields that say otherwise belong to another class.
Status refuse_windows(const JsonFields& config, DecoderSpec& spec) {
  if (config.has("sliding_window")) {
    LANNER_ASSIGN_OR_RETURN(const bool used, config.boolean_or("use_sliding_window", true));
    if (used) return config.not_supported("sliding_window", "sliding window attention is no part of this class");
  }
  LANNER_RETURN_IF_ERROR(set_windows(config, 1, [](std::int64_t) { return false; }, spec));
  const bool slides = std::ranges::any_of(spec.layers, [](const LayerSpec& layer) { return layer.window > 0; });
  if (slides) return config.not_supported("layer_types", "sliding window attention is no part of this class");
  return {};
}

}  // namespace

Result<DecoderSpec> read_llama(const Checkpoint& checkpoint, const JsonFields& config) {
  Layout layout;
  LANNER_ASSIGN_OR_RETURN(layout.qkv_bias, config.boolean_or("attention_bias", false));
  layout.o_bias = layout.qkv_bias;
  LANNER_ASSIGN_OR_RETURN(layout.mlp_bias, config.boolean_or("mlp_bias", false));
  layout.pairwise = is_gguf(checkpoint);
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_usual(checkpoint, config, layout));
  if (!is_gguf(checkpoint)) {
    LANNER_RETURN_IF_ERROR(refuse_windows(config, spec));
    return spec;
  }
  // Mistral's GGUF files are of this class too.
  LANNER_RETURN_IF_ERROR(refuse_partial_rotation(config, spec));
  LANNER_RETURN_IF_ERROR(read_rope_divisors(checkpoint, spec.ropes.front()));
  LANNER_ASSIGN_OR_RETURN(const std::int64_t window, read_window(config, 0));
  LANNER_RETURN_IF_ERROR(set_windows(config, window, [](std::int64_t) { return true; }, spec));
  return spec;
}

}  // namespace lanner::model::arch
