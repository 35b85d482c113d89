// Qwen 1.5, 2 and 2.5 (arXiv 2407.10671, 2412.15115): Llama with biases on q, k and v, and windows on the upper layers
// where use_sliding_window says so. Qwen 3 (arXiv 2505.09388) has norms on q and k instead of the biases.

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {
namespace {

Status read_upper_windows(const JsonFields& config, DecoderSpec& spec) {
  LANNER_ASSIGN_OR_RETURN(const bool used, config.boolean_or("use_sliding_window", false));
  std::int64_t window = 0;
  if (used) {
    LANNER_ASSIGN_OR_RETURN(window, read_window(config, 4096));
  }
  LANNER_ASSIGN_OR_RETURN(const std::int64_t full, config.integer_or("max_window_layers", 0, kMaxLayers, 28));
  return set_windows(config, window, [&](std::int64_t layer) { return layer >= full; }, spec);
}

}  // namespace

Result<DecoderSpec> read_qwen2(const Checkpoint& checkpoint, const JsonFields& config) {
  Layout layout;
  layout.qkv_bias = true;
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_usual(checkpoint, config, layout, {.max_position = 32768}));
  LANNER_RETURN_IF_ERROR(read_upper_windows(config, spec));
  return spec;
}

Result<DecoderSpec> read_qwen3(const Checkpoint& checkpoint, const JsonFields& config) {
  Layout layout;
  layout.qk_norms = true;
  LANNER_ASSIGN_OR_RETURN(layout.qkv_bias, config.boolean_or("attention_bias", false));
  layout.o_bias = layout.qkv_bias;
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_usual(checkpoint, config, layout, {.max_position = 32768}));
  LANNER_RETURN_IF_ERROR(read_upper_windows(config, spec));
  return spec;
}

}  // namespace lanner::model::arch
