// ChatGLM 2 and 3 and the first form of GLM-4 (arXiv 2406.12793): RMSNorm, half of each head rotates in neighbouring
// pairs, q, k and v in one tensor with a bias, gate and up in one tensor. Field names are those of ChatGLMConfig.

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {
namespace {

/// Switches that all published checkpoints set the same way.
Status check_switches(const JsonFields& config) {
  struct Switch {
    std::string_view field;
    bool value;
  };
  for (const auto& [field, value] :
       {Switch{"rmsnorm", true}, Switch{"post_layer_norm", true},
        Switch{"apply_residual_connection_post_layernorm", false}, Switch{"add_bias_linear", false}}) {
    LANNER_RETURN_IF_ERROR(require(config, field, value));
  }
  if (config.has("pre_seq_len")) return config.not_supported("pre_seq_len", "prefix tuning is not implemented");
  return {};
}

Layout folder_layout() {
  Layout layout;
  layout.names = {.layer = "transformer.encoder.layers.{}.",
                  .attention_norm = "input_layernorm",
                  .qkv = "self_attention.query_key_value",
                  .o = "self_attention.dense",
                  .mlp_norm = "post_attention_layernorm",
                  .gate_up = "mlp.dense_h_to_4h",
                  .down = "mlp.dense_4h_to_h",
                  .embedding = "transformer.embedding.word_embeddings",
                  .final_norm = "transformer.encoder.final_layernorm",
                  .head = "transformer.output_layer"};
  layout.fused_gate_up = true;
  layout.pairwise = true;
  return layout;
}

Status read_chatglm_sizes(const JsonFields& config, DecoderSpec& spec) {
  LANNER_ASSIGN_OR_RETURN(spec.vocab,
                          config.integer(first_field(config, {"padded_vocab_size", "vocab_size"}), 1, kMaxVocab));
  LANNER_ASSIGN_OR_RETURN(spec.hidden, config.integer("hidden_size", 1, kMaxHidden));
  LANNER_ASSIGN_OR_RETURN(
      spec.intermediate,
      config.integer(first_field(config, {"ffn_hidden_size", "intermediate_size"}), 1, kMaxIntermediate));
  LANNER_ASSIGN_OR_RETURN(spec.heads, config.integer("num_attention_heads", 1, kMaxHeads));
  LANNER_RETURN_IF_ERROR(read_head_sizes(config, 8192, spec));
  LANNER_ASSIGN_OR_RETURN(spec.head_dim, config.integer_or("kv_channels", 1, kMaxHeadDim, spec.head_dim));
  LANNER_ASSIGN_OR_RETURN(
      spec.max_position,
      config.integer_or(first_field(config, {"seq_length", "max_position_embeddings"}), 1, kMaxPosition, 8192));
  LANNER_ASSIGN_OR_RETURN(const bool grouped, config.boolean_or("multi_query_attention", false));
  if (grouped) {
    LANNER_ASSIGN_OR_RETURN(spec.kv_heads, config.integer_or("multi_query_group_num", 1, kMaxHeads, 1));
    if (spec.heads % spec.kv_heads != 0) return config.wrong("multi_query_group_num", "does not divide the heads");
  }
  LANNER_ASSIGN_OR_RETURN(
      spec.norm_eps, config.number_or(first_field(config, {"layernorm_epsilon", "rms_norm_eps"}), 1e-20, 1.0, 1e-5));
  return {};
}

}  // namespace

Result<DecoderSpec> read_chatglm(const Checkpoint& checkpoint, const JsonFields& config) {
  DecoderSpec spec;
  LANNER_RETURN_IF_ERROR(refuse_unknown_features(config));
  LANNER_RETURN_IF_ERROR(check_switches(config));
  LANNER_RETURN_IF_ERROR(read_chatglm_sizes(config, spec));
  LANNER_ASSIGN_OR_RETURN(RopeSpec rope, read_rope(config, spec.head_dim, spec.max_position, {.rotary_share = 0.5}));
  LANNER_ASSIGN_OR_RETURN(const double ratio, config.number_or("rope_ratio", 1e-3, 1e6, 1.0));
  rope.theta *= ratio;
  spec.ropes = {rope};
  Layout layout = folder_layout();
  LANNER_ASSIGN_OR_RETURN(const bool grouped, config.boolean_or("multi_query_attention", false));
  layout.qkv = grouped ? QkvRows::kStacked : QkvRows::kByKvHead;
  LANNER_ASSIGN_OR_RETURN(layout.qkv_bias, config.boolean_or("add_qkv_bias", false));
  if (is_gguf(checkpoint)) layout = gguf_layout(checkpoint, layout);
  LANNER_ASSIGN_OR_RETURN(const std::int64_t layers,
                          read_layer_count(config, first_field(config, {"num_layers", "num_hidden_layers"})));
  LANNER_ASSIGN_OR_RETURN(const bool tied, config.boolean_or("tie_word_embeddings", false));
  add_layers(checkpoint, layout, layers, tied, spec);
  return spec;
}

}  // namespace lanner::model::arch
