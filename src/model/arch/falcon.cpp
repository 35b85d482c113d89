// Falcon (arXiv 2311.16867): layer norm, an MLP without a gate, q, k and v in one tensor. 7B and 40B add attention and
// MLP to the same x; 7B has one key-value head, 40B (new_decoder_architecture) several and two norms; the RW models
// have ALiBi, biases, and one half of a layer behind the other. Field names are those of Transformers' FalconConfig.

#include <cmath>

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {
namespace {

/// The switches that make one Falcon or another.
struct Variant {
  bool grouped = false;      // new_decoder_architecture
  bool multi_query = false;  // one key-value head
  bool parallel = false;
  bool two_norms = false;  // of attention and MLP, in a parallel layer
  bool alibi = false;
  bool bias = false;
};

Result<Variant> read_variant(const JsonFields& config) {
  Variant variant;
  LANNER_ASSIGN_OR_RETURN(variant.grouped, config.boolean_or("new_decoder_architecture", false));
  LANNER_ASSIGN_OR_RETURN(variant.multi_query, config.boolean_or("multi_query", true));
  LANNER_ASSIGN_OR_RETURN(variant.parallel, config.boolean_or("parallel_attn", true));
  LANNER_ASSIGN_OR_RETURN(variant.alibi, config.boolean_or("alibi", false));
  LANNER_ASSIGN_OR_RETURN(variant.bias, config.boolean_or("bias", false));
  LANNER_ASSIGN_OR_RETURN(const auto norms,
                          config.integer_or("num_ln_in_parallel_attn", 1, 2, variant.grouped ? 2 : 1));
  variant.two_norms = norms == 2;
  if (variant.two_norms && !variant.grouped) {
    return config.not_supported("num_ln_in_parallel_attn", "2 without new_decoder_architecture is not implemented");
  }
  if (variant.grouped && !variant.parallel) {
    return config.not_supported("parallel_attn", "false with new_decoder_architecture is not implemented");
  }
  return variant;
}

/// A GGUF does not have the switches. llama.cpp runs 7B and 40B, whose tensors tell which it is.
Result<Variant> gguf_variant(const Checkpoint& checkpoint, const JsonFields& config) {
  if (checkpoint.has_tensor("blk.0.attn_qkv.bias")) {
    return config.not_supported("architectures", "GGUF files of Falcon models with biases and ALiBi are not read");
  }
  return Variant{.grouped = true, .parallel = true, .two_norms = checkpoint.has_tensor("blk.0.attn_norm_2.weight")};
}

Layout folder_layout(const Variant& variant) {
  Layout layout;
  layout.names = {.layer = "transformer.h.{}.",
                  .attention_norm = variant.two_norms ? "ln_attn" : "input_layernorm",
                  .qkv = "self_attention.query_key_value",
                  .o = "self_attention.dense",
                  .mlp_norm = variant.two_norms ? "ln_mlp" : "post_attention_layernorm",
                  .up = "mlp.dense_h_to_4h",
                  .down = "mlp.dense_4h_to_h",
                  .embedding = "transformer.word_embeddings",
                  .final_norm = "transformer.ln_f"};
  // Several heads without grouping have q, k and v of each head together; one key-value head lies behind all of q.
  layout.qkv = QkvRows::kByKvHead;
  layout.qkv_bias = layout.o_bias = layout.mlp_bias = variant.bias;
  return layout;
}

Status read_falcon_sizes(const Checkpoint& checkpoint, const JsonFields& config, const Variant& variant,
                         DecoderSpec& spec) {
  LANNER_ASSIGN_OR_RETURN(spec.vocab, config.integer("vocab_size", 1, kMaxVocab));
  LANNER_ASSIGN_OR_RETURN(spec.hidden, config.integer("hidden_size", 1, kMaxHidden));
  LANNER_ASSIGN_OR_RETURN(spec.heads, config.integer("num_attention_heads", 1, kMaxHeads));
  LANNER_RETURN_IF_ERROR(read_head_sizes(config, 2048, spec));
  if (!is_gguf(checkpoint)) {
    LANNER_ASSIGN_OR_RETURN(spec.kv_heads, config.integer_or("num_kv_heads", 1, kMaxHeads, spec.heads));
    if (!variant.grouped) spec.kv_heads = variant.multi_query ? 1 : spec.heads;
    if (spec.heads % spec.kv_heads != 0) return config.wrong("num_kv_heads", "does not divide num_attention_heads");
    if (spec.head_dim * spec.heads != spec.hidden) return config.wrong("head_dim", "times heads is not hidden_size");
  }
  LANNER_ASSIGN_OR_RETURN(spec.intermediate,
                          config.integer_or(first_field(config, {"ffn_hidden_size", "intermediate_size"}), 1,
                                            kMaxIntermediate, 4 * spec.hidden));
  LANNER_ASSIGN_OR_RETURN(spec.norm_eps, config.number_or("layer_norm_epsilon", 1e-20, 1.0, 1e-5));
  return {};
}

}  // namespace

Result<DecoderSpec> read_falcon(const Checkpoint& checkpoint, const JsonFields& config) {
  DecoderSpec spec;
  LANNER_RETURN_IF_ERROR(refuse_unknown_features(config));
  LANNER_ASSIGN_OR_RETURN(const Variant variant,
                          is_gguf(checkpoint) ? gguf_variant(checkpoint, config) : read_variant(config));
  LANNER_RETURN_IF_ERROR(read_falcon_sizes(checkpoint, config, variant, spec));
  LANNER_ASSIGN_OR_RETURN(spec.activation, read_activation(config, "activation", "gelu"));
  spec.norm_type = NormType::kLayer;
  spec.parallel_layers = variant.parallel;
  if (variant.alibi) {
    // The published code adds the slopes before it divides the scores by the root of head_dim.
    spec.alibi_slopes = alibi_slopes(spec.heads);
    for (double& slope : spec.alibi_slopes) slope /= std::sqrt(static_cast<double>(spec.head_dim));
  } else {
    LANNER_ASSIGN_OR_RETURN(const RopeSpec rope, read_rope(config, spec.head_dim, spec.max_position));
    spec.ropes = {rope};
  }
  Layout layout = folder_layout(variant);
  layout.has_gate = false;
  layout.norm_biases = true;
  if (is_gguf(checkpoint)) {
    layout = gguf_layout(checkpoint, layout);
    layout.names.mlp_norm = "attn_norm";
    if (variant.two_norms) layout.names.attention_norm = "attn_norm_2";
  } else if (variant.parallel && !variant.two_norms) {
    layout.names.mlp_norm = layout.names.attention_norm;
  }
  LANNER_ASSIGN_OR_RETURN(const std::int64_t layers, read_layer_count(config));
  LANNER_ASSIGN_OR_RETURN(const bool tied, config.boolean_or("tie_word_embeddings", true));
  add_layers(checkpoint, layout, layers, tied, spec);
  return spec;
}

}  // namespace lanner::model::arch
