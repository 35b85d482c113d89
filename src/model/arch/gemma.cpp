// Gemma 1, 2 and 3 (arXiv 2403.08295, 2408.00118, 2503.19786): embeddings scaled by the root of the hidden size, gains
// stored as gain - 1, GELU. Gemma 2 adds norms behind attention and MLP, soft caps, and a window on every other layer;
// Gemma 3 norms on q and k in place of the caps, and a rope of its own for the layers with a window.

#include <cmath>
#include <optional>
#include <string>

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {
namespace {

constexpr std::int64_t kHeadDim = 256;  // of all Gemmas, where a configuration leaves it out

Layout post_norm_layout() {
  Layout layout;
  layout.names.attention_post_norm = "post_attention_layernorm";
  layout.names.mlp_norm = "pre_feedforward_layernorm";
  layout.names.mlp_post_norm = "post_feedforward_layernorm";
  layout.post_norms = true;
  return layout;
}

/// What all three have in common.
Result<DecoderSpec> read_any(const Checkpoint& checkpoint, const JsonFields& config, Layout layout,
                             FamilyDefaults defaults) {
  if (!is_gguf(checkpoint) && !config.has("head_dim")) {
    return config.wrong("head_dim", "is missing");  // not hidden_size / num_attention_heads, and no guess
  }
  LANNER_ASSIGN_OR_RETURN(layout.qkv_bias, config.boolean_or("attention_bias", false));
  layout.o_bias = layout.qkv_bias;
  LANNER_RETURN_IF_ERROR(require(config, "use_bidirectional_attention", false));
  defaults.tied = true;
  defaults.activation = first_field(config, {"hidden_activation", "hidden_act"});
  defaults.activation_name = "gelu_pytorch_tanh";
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_usual(checkpoint, config, layout, defaults));
  // The first configurations say gelu and mean its tanh form.
  if (spec.activation == Activation::kGelu) spec.activation = Activation::kGeluTanh;
  spec.embedding_scale = std::sqrt(static_cast<double>(spec.hidden));
  spec.norm_gain_offset = is_gguf(checkpoint) ? 0.0 : 1.0;  // llama.cpp's converter adds it
  return spec;
}

/// 0 for none. `fallback` where the field is absent, which is not the same as null.
Result<double> read_cap(const JsonFields& config, std::string_view field, double fallback) {
  if (config.is_null(field)) return 0.0;
  return config.number_or(field, 1e-3, 1e6, fallback);
}

/// query_pre_attn_scalar; a GGUF does not have it, and llama.cpp knows the models that differ by their layers.
Status read_attention_scale(const Checkpoint& checkpoint, const JsonFields& config, std::size_t layers_of_27b,
                            DecoderSpec& spec) {
  double scalar = static_cast<double>(kHeadDim);
  if (is_gguf(checkpoint)) {
    const std::int64_t width = spec.layers.size() == layers_of_27b ? spec.hidden / spec.heads : spec.head_dim;
    scalar = static_cast<double>(width);
  }
  LANNER_ASSIGN_OR_RETURN(scalar, config.number_or("query_pre_attn_scalar", 1e-3, 1e6, scalar));
  spec.attention_scale = 1.0 / std::sqrt(scalar);
  return {};
}

/// The rope of the layers without a window, or of those with one: an object each in Transformers 5; before, rope_theta
/// and rope_scaling, and rope_local_base_freq.
Result<RopeSpec> read_gemma3_rope(const JsonFields& config, const DecoderSpec& spec, bool local) {
  LANNER_ASSIGN_OR_RETURN(const auto parameters, config.object("rope_parameters"));
  LANNER_ASSIGN_OR_RETURN(const auto scaling, config.object("rope_scaling"));
  std::optional<JsonFields> rope;
  if (parameters) {
    LANNER_ASSIGN_OR_RETURN(rope, parameters->object(local ? "sliding_attention" : "full_attention"));
  }
  if (!local) {
    if (scaling) rope = scaling;
    return read_rope_object(config, rope, spec.head_dim, spec.max_position, {.theta = 1e6});
  }
  LANNER_ASSIGN_OR_RETURN(const double theta, config.number_or("rope_local_base_freq", 1.0, 1e12, 10000.0));
  const Json none = Json::object();
  const JsonFields nothing(none, config.where());
  return read_rope_object(nothing, rope, spec.head_dim, spec.max_position, {.theta = theta});
}

}  // namespace

Result<DecoderSpec> read_gemma(const Checkpoint& checkpoint, const JsonFields& config) {
  return read_any(checkpoint, config, {}, {.max_position = 8192});
}

Result<DecoderSpec> read_gemma2(const Checkpoint& checkpoint, const JsonFields& config) {
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_any(checkpoint, config, post_norm_layout(), {.max_position = 8192}));
  LANNER_RETURN_IF_ERROR(read_attention_scale(checkpoint, config, 46, spec));
  LANNER_ASSIGN_OR_RETURN(spec.attention_soft_cap, read_cap(config, "attn_logit_softcapping", 50.0));
  LANNER_ASSIGN_OR_RETURN(spec.logit_soft_cap, read_cap(config, "final_logit_softcapping", 30.0));
  LANNER_ASSIGN_OR_RETURN(const std::int64_t window, read_window(config, 4096));
  LANNER_RETURN_IF_ERROR(set_windows(config, window, [](std::int64_t layer) { return layer % 2 == 0; }, spec));
  return spec;
}

Result<DecoderSpec> read_gemma3(const Checkpoint& checkpoint, const JsonFields& config) {
  Layout layout = post_norm_layout();
  layout.qk_norms = true;
  FamilyDefaults defaults{.max_position = 131072};
  defaults.rope.theta = 1e6;
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_any(checkpoint, config, layout, defaults));
  LANNER_RETURN_IF_ERROR(read_attention_scale(checkpoint, config, 62, spec));
  LANNER_ASSIGN_OR_RETURN(spec.attention_soft_cap, read_cap(config, "attn_logit_softcapping", 0.0));
  LANNER_ASSIGN_OR_RETURN(spec.logit_soft_cap, read_cap(config, "final_logit_softcapping", 0.0));
  LANNER_ASSIGN_OR_RETURN(const std::int64_t window, read_window(config, is_gguf(checkpoint) ? 0 : 4096));
  LANNER_ASSIGN_OR_RETURN(const std::int64_t pattern, config.integer_or("sliding_window_pattern", 1, kMaxLayers, 6));
  LANNER_RETURN_IF_ERROR(
      set_windows(config, window, [&](std::int64_t layer) { return (layer + 1) % pattern != 0; }, spec));
  LANNER_ASSIGN_OR_RETURN(const RopeSpec global, read_gemma3_rope(config, spec, false));
  LANNER_ASSIGN_OR_RETURN(const RopeSpec local, read_gemma3_rope(config, spec, true));
  spec.ropes = {global, local};
  for (LayerSpec& layer : spec.layers) layer.rope = layer.window > 0 ? 1 : 0;
  return spec;
}

}  // namespace lanner::model::arch
