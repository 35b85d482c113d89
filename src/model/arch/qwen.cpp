// Qwen 1 (arXiv 2309.16609, QWenLMHeadModel): Llama with q, k and v in one tensor that has a bias.
//
// use_dynamic_ntk and use_logn_attn change what lies past seq_length alone. Neither is implemented, so that the model's
// context is seq_length; a longer session runs without them, as the engine says when it opens.

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {
namespace {

Layout folder_layout() {
  Layout layout;
  layout.names = {.layer = "transformer.h.{}.",
                  .attention_norm = "ln_1",
                  .qkv = "attn.c_attn",
                  .o = "attn.c_proj",
                  .mlp_norm = "ln_2",
                  .gate = "mlp.w2",
                  .up = "mlp.w1",
                  .down = "mlp.c_proj",
                  .embedding = "transformer.wte",
                  .final_norm = "transformer.ln_f"};
  layout.qkv = QkvRows::kStacked;
  layout.qkv_bias = true;
  return layout;
}

}  // namespace

Result<DecoderSpec> read_qwen(const Checkpoint& checkpoint, const JsonFields& config) {
  LANNER_RETURN_IF_ERROR(require(config, "no_bias", true));
  LANNER_RETURN_IF_ERROR(require(config, "scale_attn_weights", true));
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec,
                          read_usual(checkpoint, config, folder_layout(),
                                     {.epsilon = first_field(config, {"layer_norm_epsilon", "rms_norm_eps"})}));
  LANNER_ASSIGN_OR_RETURN(const auto channels, config.integer_or("kv_channels", 1, kMaxHeadDim, spec.head_dim));
  if (channels != spec.head_dim) return config.not_supported("kv_channels", "is not hidden_size / num_attention_heads");
  RopeSpec& rope = spec.ropes.front();
  LANNER_ASSIGN_OR_RETURN(rope.theta, config.number_or("rotary_emb_base", 1.0, 1e12, rope.theta));
  LANNER_ASSIGN_OR_RETURN(const double share, config.number_or("rotary_pct", 1e-3, 1.0, 1.0));
  if (share != 1.0) return config.not_supported("rotary_pct", "only 1 is implemented");
  LANNER_ASSIGN_OR_RETURN(
      spec.max_position,
      config.integer_or(first_field(config, {"seq_length", "max_position_embeddings"}), 1, kMaxPosition, 8192));
  // The field counts the gate's and the up projection's rows together.
  if (spec.intermediate % 2 != 0) return config.wrong("intermediate_size", "is odd");
  spec.intermediate /= 2;
  for (LayerSpec& layer : spec.layers) {
    layer.gate.rows = layer.up.rows = layer.down.cols = spec.intermediate;
  }
  return spec;
}

}  // namespace lanner::model::arch
