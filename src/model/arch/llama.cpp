// Llama (arXiv 2302.13971, 2407.21783) and what shares its shape: pre-norm RMSNorm, rotary grouped-query attention,
// gated MLP. Field names and defaults are those of Transformers' LlamaConfig.

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "model/arch/registry.h"
#include "model/decoder_config.h"

namespace lanner::model::arch {
namespace {

/// Tensor names of one layer, and of the ends of the model.
struct Names {
  std::string_view layer;  // with {} for the layer's number
  std::string_view attention_norm, q, k, v, o, mlp_norm, gate, up, down;
  std::string_view embedding, final_norm, head;
};

constexpr Names kHuggingFaceNames{
    "model.layers.{}.", "input_layernorm",  "self_attn.q_proj",         "self_attn.k_proj",
    "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj",
    "mlp.up_proj",      "mlp.down_proj",    "model.embed_tokens",       "model.norm",
    "lm_head"};
constexpr Names kGgufNames{"blk.{}.",  "attn_norm", "attn_q",   "attn_k",     "attn_v",      "attn_output", "ffn_norm",
                           "ffn_gate", "ffn_up",    "ffn_down", "token_embd", "output_norm", "output"};

Status refuse_unknown_features(const JsonFields& config, std::int64_t layers) {
  if (config.has("quantization_config")) {
    return config.not_supported("quantization_config", "this build reads folders with plain weights only");
  }
  if (config.has("num_local_experts")) {
    LANNER_ASSIGN_OR_RETURN(const auto experts, config.integer("num_local_experts", 0, 1 << 20));
    if (experts > 0) return config.not_supported("num_local_experts", "mixture of experts is not implemented");
  }
  if (config.has("sliding_window")) {
    LANNER_ASSIGN_OR_RETURN(const bool used, config.boolean_or("use_sliding_window", true));
    if (used) return config.not_supported("sliding_window", "sliding window attention is not implemented");
  }
  const Json* types = config.find("layer_types");
  if (types == nullptr) return {};
  if (!types->is_array() || static_cast<std::int64_t>(types->size()) != layers) {
    return config.wrong("layer_types", fmt::format("is not a list of {} names", layers));
  }
  for (const Json& type : *types) {
    if (!type.is_string()) return config.wrong("layer_types", "holds something that is not a name");
    if (type.get<std::string>() != "full_attention") {
      return config.not_supported("layer_types", fmt::format("'{}' is not implemented, only full_attention is",
                                                             printable(type.get<std::string>())));
    }
  }
  return {};
}

Status read_sizes(const JsonFields& config, DecoderSpec& spec) {
  LANNER_ASSIGN_OR_RETURN(spec.vocab, config.integer("vocab_size", 1, kMaxVocab));
  LANNER_ASSIGN_OR_RETURN(spec.hidden, config.integer("hidden_size", 1, kMaxHidden));
  LANNER_ASSIGN_OR_RETURN(spec.intermediate, config.integer("intermediate_size", 1, kMaxIntermediate));
  LANNER_ASSIGN_OR_RETURN(spec.heads, config.integer("num_attention_heads", 1, kMaxHeads));
  LANNER_ASSIGN_OR_RETURN(spec.kv_heads, config.integer_or("num_key_value_heads", 1, kMaxHeads, spec.heads));
  if (!config.has("head_dim") && spec.hidden % spec.heads != 0) {
    return config.wrong("hidden_size", fmt::format("{} is not a multiple of {} {}", spec.hidden,
                                                   config.name("num_attention_heads"), spec.heads));
  }
  LANNER_ASSIGN_OR_RETURN(spec.head_dim, config.integer_or("head_dim", 1, kMaxHeadDim, spec.hidden / spec.heads));
  LANNER_ASSIGN_OR_RETURN(spec.max_position, config.integer_or("max_position_embeddings", 1, kMaxPosition, 2048));
  LANNER_ASSIGN_OR_RETURN(spec.norm_eps, config.number_or("rms_norm_eps", 0.0, 1.0, 1e-6));
  return {};
}

/// Llama 3's frequency scaling in a GGUF is not four numbers in the metadata but the tensor they lead to:
/// rope_freqs.weight, one divisor a frequency. All Llama 3.1 to 3.3 files follow low 1, high 4, original context
/// 8192; the factor is the largest divisor. The tensor is compared with what those give, and refused if it differs.
Status read_rope_divisors(const Checkpoint& checkpoint, DecoderSpec& spec) {
  constexpr std::string_view kName = "rope_freqs.weight";
  if (!checkpoint.has_tensor(kName)) return {};
  const std::int64_t count = spec.rope.rotary_dim / 2;
  LANNER_ASSIGN_OR_RETURN(const std::vector<float> divisors, checkpoint.vector(kName, count));
  double factor = 1.0;
  for (const float divisor : divisors) factor = std::max(factor, static_cast<double>(divisor));
  RopeSpec rope = spec.rope;
  rope.kind = RopeKind::kLlama3;
  rope.factor = factor;
  rope.original_max_position = 8192;
  const double original = static_cast<double>(rope.original_max_position);
  bool equal = spec.rope.kind == RopeKind::kDefault;
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
  if (factor > 1.0) spec.rope = rope;
  return {};
}

/// Which projections have a bias: config.json says so, a GGUF shows it.
struct Biases {
  bool attention = false;
  bool mlp = false;
};

ProjectionSpec projection(const Checkpoint& checkpoint, const std::string& name, std::int64_t rows, std::int64_t cols,
                          bool has_bias) {
  ProjectionSpec spec;
  spec.weight = name + ".weight";
  spec.rows = rows;
  spec.cols = cols;
  const std::string bias = name + ".bias";
  const bool shown = checkpoint.kind() == CheckpointKind::kGguf && checkpoint.has_tensor(bias);
  if (has_bias || shown) spec.bias = bias;
  return spec;
}

LayerSpec read_layer(const Checkpoint& checkpoint, const Names& names, const DecoderSpec& spec, const Biases& biases,
                     std::int64_t index) {
  const std::string prefix = fmt::format(fmt::runtime(names.layer), index);
  const auto named = [&](std::string_view name, std::int64_t rows, std::int64_t cols, bool bias) {
    return projection(checkpoint, prefix + std::string(name), rows, cols, bias);
  };
  const std::int64_t q_rows = spec.heads * spec.head_dim;
  const std::int64_t kv_rows = spec.kv_heads * spec.head_dim;
  LayerSpec layer;
  layer.attention_norm = prefix + std::string(names.attention_norm) + ".weight";
  layer.q = named(names.q, q_rows, spec.hidden, biases.attention);
  layer.k = named(names.k, kv_rows, spec.hidden, biases.attention);
  layer.v = named(names.v, kv_rows, spec.hidden, biases.attention);
  layer.o = named(names.o, spec.hidden, q_rows, biases.attention);
  layer.mlp_norm = prefix + std::string(names.mlp_norm) + ".weight";
  layer.gate = named(names.gate, spec.intermediate, spec.hidden, biases.mlp);
  layer.up = named(names.up, spec.intermediate, spec.hidden, biases.mlp);
  layer.down = named(names.down, spec.hidden, spec.intermediate, biases.mlp);
  if (checkpoint.kind() == CheckpointKind::kGguf) {
    layer.q.row_order = layer.k.row_order = RowOrder::kPairwiseRope;
    layer.q.heads = spec.heads;
    layer.k.heads = spec.kv_heads;
  }
  return layer;
}

}  // namespace

Result<DecoderSpec> read_llama(const Checkpoint& checkpoint, const JsonFields& config) {
  const bool gguf = checkpoint.kind() == CheckpointKind::kGguf;
  DecoderSpec spec;
  LANNER_RETURN_IF_ERROR(read_sizes(config, spec));
  LANNER_ASSIGN_OR_RETURN(const std::int64_t layers, config.integer("num_hidden_layers", 1, kMaxLayers));
  LANNER_RETURN_IF_ERROR(refuse_unknown_features(config, layers));
  LANNER_ASSIGN_OR_RETURN(spec.activation, read_activation(config));
  LANNER_ASSIGN_OR_RETURN(spec.rope, read_rope(config, spec.head_dim, spec.max_position));
  if (gguf) {
    if (spec.rope.rotary_dim != spec.head_dim) {
      return config.not_supported("partial_rotary_factor", "rows that rotate in part are not implemented for GGUF");
    }
    LANNER_RETURN_IF_ERROR(read_rope_divisors(checkpoint, spec));
  }
  Biases biases;
  LANNER_ASSIGN_OR_RETURN(biases.attention, config.boolean_or("attention_bias", false));
  LANNER_ASSIGN_OR_RETURN(biases.mlp, config.boolean_or("mlp_bias", false));
  LANNER_ASSIGN_OR_RETURN(const bool tied, config.boolean_or("tie_word_embeddings", false));
  const Names& names = gguf ? kGgufNames : kHuggingFaceNames;
  spec.embedding = std::string(names.embedding) + ".weight";
  spec.final_norm = std::string(names.final_norm) + ".weight";
  spec.head = tied ? spec.embedding : std::string(names.head) + ".weight";
  for (std::int64_t i = 0; i < layers; ++i) spec.layers.push_back(read_layer(checkpoint, names, spec, biases, i));
  return spec;
}

}  // namespace lanner::model::arch
