#include "model/arch/family.h"

#include <fmt/format.h>

#include <cmath>
#include <string>

namespace lanner::model::arch {
namespace {

constexpr Names kGgufNames{.layer = "blk.{}.",
                           .attention_norm = "attn_norm",
                           .q = "attn_q",
                           .k = "attn_k",
                           .v = "attn_v",
                           .qkv = "attn_qkv",
                           .o = "attn_output",
                           .q_norm = "attn_q_norm",
                           .k_norm = "attn_k_norm",
                           .attention_post_norm = "post_attention_norm",
                           .mlp_norm = "ffn_norm",
                           .gate = "ffn_gate",
                           .up = "ffn_up",
                           .gate_up = "ffn_up",
                           .down = "ffn_down",
                           .mlp_post_norm = "post_ffw_norm",
                           .embedding = "token_embd",
                           .final_norm = "output_norm",
                           .head = "output"};

/// Writes one layer.
class LayerWriter {
 public:
  LayerWriter(const Checkpoint& checkpoint, const Layout& layout, const DecoderSpec& spec, std::int64_t index)
      : checkpoint_(checkpoint),
        layout_(layout),
        spec_(spec),
        prefix_(fmt::format(fmt::runtime(layout.names.layer), index)) {}

  LayerSpec write() const {
    const Names& names = layout_.names;
    LayerSpec layer;
    layer.attention_norm = norm(names.attention_norm);
    write_qkv(layer);
    layer.o = projection(names.o, spec_.hidden, spec_.heads * spec_.head_dim, layout_.o_bias);
    layer.mlp_norm = norm(names.mlp_norm);
    write_gate_up(layer);
    layer.down = projection(names.down, spec_.hidden, spec_.intermediate, layout_.mlp_bias);
    if (layout_.qk_norms) {
      layer.q_norm = norm(names.q_norm);
      layer.k_norm = norm(names.k_norm);
    }
    if (layout_.post_norms) {
      layer.attention_post_norm = norm(names.attention_post_norm);
      layer.mlp_post_norm = norm(names.mlp_post_norm);
    }
    layer.rope = spec_.ropes.empty() ? -1 : 0;
    return layer;
  }

 private:
  std::string named(std::string_view name) const { return prefix_ + std::string(name); }

  NormSpec norm(std::string_view name) const {
    NormSpec spec{.weight = named(name) + ".weight", .bias = ""};
    if (layout_.norm_biases) spec.bias = named(name) + ".bias";
    return spec;
  }

  ProjectionSpec projection(std::string_view name, std::int64_t rows, std::int64_t cols, bool has_bias) const {
    ProjectionSpec spec;
    spec.weight = named(name) + ".weight";
    spec.rows = rows;
    spec.cols = cols;
    const std::string bias = named(name) + ".bias";
    const bool shown = is_gguf(checkpoint_) && checkpoint_.has_tensor(bias);
    if (has_bias || shown) spec.bias = bias;
    return spec;
  }

  void write_qkv(LayerSpec& layer) const {
    const Names& names = layout_.names;
    const std::int64_t q_rows = spec_.heads * spec_.head_dim;
    const std::int64_t kv_rows = spec_.kv_heads * spec_.head_dim;
    const bool separate = layout_.qkv == QkvRows::kSeparate;
    layer.q = projection(separate ? names.q : names.qkv, q_rows, spec_.hidden, layout_.qkv_bias);
    layer.k = projection(separate ? names.k : names.qkv, kv_rows, spec_.hidden, layout_.qkv_bias);
    layer.v = projection(separate ? names.v : names.qkv, kv_rows, spec_.hidden, layout_.qkv_bias);
    const std::int64_t all = q_rows + 2 * kv_rows;
    if (layout_.qkv == QkvRows::kStacked) {
      layer.q.slice = RowSlice{.tensor_rows = all, .first = 0, .block_rows = q_rows, .stride = q_rows};
      layer.k.slice = RowSlice{.tensor_rows = all, .first = q_rows, .block_rows = kv_rows, .stride = kv_rows};
      layer.v.slice = RowSlice{.tensor_rows = all, .first = q_rows + kv_rows, .block_rows = kv_rows, .stride = kv_rows};
    }
    if (layout_.qkv == QkvRows::kByKvHead) {
      const std::int64_t group = q_rows / spec_.kv_heads;  // kv_heads divides heads, or the spec is refused
      const std::int64_t stride = group + 2 * spec_.head_dim;
      layer.q.slice = RowSlice{.tensor_rows = all, .first = 0, .block_rows = group, .stride = stride};
      layer.k.slice = RowSlice{.tensor_rows = all, .first = group, .block_rows = spec_.head_dim, .stride = stride};
      layer.v.slice =
          RowSlice{.tensor_rows = all, .first = group + spec_.head_dim, .block_rows = spec_.head_dim, .stride = stride};
    }
    if (!layout_.pairwise || spec_.ropes.empty()) return;
    layer.q.heads = spec_.heads;
    layer.k.heads = spec_.kv_heads;
    for (ProjectionSpec* rotated : {&layer.q, &layer.k}) {
      rotated->row_order = RowOrder::kPairwiseRope;
      rotated->rotary_dim = spec_.ropes.front().rotary_dim;
    }
  }

  void write_gate_up(LayerSpec& layer) const {
    const Names& names = layout_.names;
    const std::int64_t rows = spec_.intermediate;
    layer.up = projection(layout_.fused_gate_up ? names.gate_up : names.up, rows, spec_.hidden, layout_.mlp_bias);
    if (!layout_.has_gate) return;
    layer.gate = projection(layout_.fused_gate_up ? names.gate_up : names.gate, rows, spec_.hidden, layout_.mlp_bias);
    if (!layout_.fused_gate_up) return;
    layer.gate.slice = RowSlice{.tensor_rows = 2 * rows, .first = 0, .block_rows = rows, .stride = rows};
    layer.up.slice = RowSlice{.tensor_rows = 2 * rows, .first = rows, .block_rows = rows, .stride = rows};
  }

  const Checkpoint& checkpoint_;
  const Layout& layout_;
  const DecoderSpec& spec_;
  std::string prefix_;
};

}  // namespace

Layout gguf_layout(const Checkpoint& checkpoint, Layout layout) {
  layout.names = kGgufNames;
  const bool fused = checkpoint.has_tensor("blk.0.attn_qkv.weight");
  layout.qkv = fused ? QkvRows::kStacked : QkvRows::kSeparate;  // the converter brings fused rows into this order
  layout.qkv_bias = layout.o_bias = layout.mlp_bias = false;
  return layout;
}

std::string_view first_field(const JsonFields& config, std::initializer_list<std::string_view> fields) {
  for (const std::string_view field : fields) {
    if (config.has(field)) return field;
  }
  return *fields.begin();
}

Status read_head_sizes(const JsonFields& config, std::int64_t max_position, DecoderSpec& spec) {
  LANNER_ASSIGN_OR_RETURN(spec.kv_heads, config.integer_or("num_key_value_heads", 1, kMaxHeads, spec.heads));
  if (spec.heads % spec.kv_heads != 0) {
    return config.wrong("num_key_value_heads", fmt::format("{} does not divide {} {}", spec.kv_heads,
                                                           config.name("num_attention_heads"), spec.heads));
  }
  if (!config.has("head_dim") && spec.hidden % spec.heads != 0) {
    return config.wrong("hidden_size", fmt::format("{} is not a multiple of {} {}", spec.hidden,
                                                   config.name("num_attention_heads"), spec.heads));
  }
  LANNER_ASSIGN_OR_RETURN(spec.head_dim, config.integer_or("head_dim", 1, kMaxHeadDim, spec.hidden / spec.heads));
  LANNER_ASSIGN_OR_RETURN(const auto value_dim, config.integer_or("gguf_value_length", 1, kMaxHeadDim, spec.head_dim));
  if (value_dim != spec.head_dim) {
    return config.not_supported("gguf_value_length", "values of another length than keys are not implemented");
  }
  LANNER_ASSIGN_OR_RETURN(spec.max_position,
                          config.integer_or("max_position_embeddings", 1, kMaxPosition, max_position));
  return {};
}

namespace {

/// vocab_size, hidden_size and so on, as most configurations call them, and the norms' epsilon.
Status read_sizes(const JsonFields& config, const FamilyDefaults& defaults, DecoderSpec& spec) {
  LANNER_ASSIGN_OR_RETURN(spec.vocab, config.integer("vocab_size", 1, kMaxVocab));
  LANNER_ASSIGN_OR_RETURN(spec.hidden, config.integer("hidden_size", 1, kMaxHidden));
  LANNER_ASSIGN_OR_RETURN(spec.intermediate, config.integer("intermediate_size", 1, kMaxIntermediate));
  LANNER_ASSIGN_OR_RETURN(spec.heads, config.integer("num_attention_heads", 1, kMaxHeads));
  LANNER_RETURN_IF_ERROR(read_head_sizes(config, defaults.max_position, spec));
  LANNER_ASSIGN_OR_RETURN(spec.norm_eps, config.number_or(defaults.epsilon, 0.0, 1.0, 1e-6));
  if (spec.norm_eps == 0.0) return config.wrong(defaults.epsilon, "0 is not positive");
  return {};
}

}  // namespace

Result<DecoderSpec> read_usual(const Checkpoint& checkpoint, const JsonFields& config, const Layout& layout,
                               const FamilyDefaults& defaults) {
  DecoderSpec spec;
  LANNER_RETURN_IF_ERROR(refuse_unknown_features(config));
  LANNER_RETURN_IF_ERROR(read_sizes(config, defaults, spec));
  LANNER_ASSIGN_OR_RETURN(spec.activation, read_activation(config, defaults.activation, defaults.activation_name));
  LANNER_ASSIGN_OR_RETURN(const RopeSpec rope, read_rope(config, spec.head_dim, spec.max_position, defaults.rope));
  spec.ropes = {rope};
  LANNER_ASSIGN_OR_RETURN(const std::int64_t layers, read_layer_count(config));
  LANNER_ASSIGN_OR_RETURN(const bool tied, config.boolean_or("tie_word_embeddings", defaults.tied));
  add_layers(checkpoint, is_gguf(checkpoint) ? gguf_layout(checkpoint, layout) : layout, layers, tied, spec);
  return spec;
}

Result<std::int64_t> read_layer_count(const JsonFields& config, std::string_view field) {
  return config.integer(field, 1, kMaxLayers);
}

Status refuse_unknown_features(const JsonFields& config) {
  for (const std::string_view field : {"num_local_experts", "num_experts"}) {
    LANNER_ASSIGN_OR_RETURN(const auto experts, config.integer_or(field, 0, 1 << 20, 0));
    if (experts > 0) return config.not_supported(field, "mixture of experts is not implemented");
  }
  if (config.has("mrope_section")) return config.not_supported("mrope_section", "mixed rotary is not implemented");
  return {};
}

Status refuse_partial_rotation(const JsonFields& config, const DecoderSpec& spec) {
  if (spec.ropes.empty() || spec.ropes.front().rotary_dim == spec.head_dim) return {};
  return config.not_supported("partial_rotary_factor", "rows that rotate in part are not implemented for these files");
}

Status require(const JsonFields& config, std::string_view field, bool value) {
  LANNER_ASSIGN_OR_RETURN(const bool found, config.boolean_or(field, value));
  if (found == value) return {};
  return config.not_supported(field, fmt::format("only {} is implemented", value));
}

void add_layers(const Checkpoint& checkpoint, const Layout& layout, std::int64_t count, bool tied, DecoderSpec& spec) {
  spec.embedding = std::string(layout.names.embedding) + ".weight";
  spec.final_norm.weight = std::string(layout.names.final_norm) + ".weight";
  if (layout.norm_biases) spec.final_norm.bias = std::string(layout.names.final_norm) + ".bias";
  spec.head = tied ? spec.embedding : std::string(layout.names.head) + ".weight";
  for (std::int64_t i = 0; i < count; ++i) {
    spec.layers.push_back(LayerWriter(checkpoint, layout, spec, i).write());
  }
}

Result<std::int64_t> read_window(const JsonFields& config, std::int64_t fallback) {
  if (config.is_null("sliding_window")) return 0;
  return config.integer_or("sliding_window", 0, kMaxPosition, fallback);
}

Status set_windows(const JsonFields& config, std::int64_t window, const std::function<bool(std::int64_t)>& slides,
                   DecoderSpec& spec) {
  const Json* types = config.find("layer_types");
  if (types != nullptr && (!types->is_array() || types->size() != spec.layers.size())) {
    return config.wrong("layer_types", fmt::format("is not a list of {} names", spec.layers.size()));
  }
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    bool slides_here = slides(static_cast<std::int64_t>(i));
    if (types != nullptr) {
      const Json& type = (*types)[i];
      if (!type.is_string()) return config.wrong("layer_types", "holds something that is not a name");
      const auto name = type.get<std::string>();
      slides_here = name == "sliding_attention";
      if (!slides_here && name != "full_attention") {
        return config.not_supported("layer_types", fmt::format("'{}' is not implemented", printable(name)));
      }
      if (slides_here && window == 0) return config.wrong("sliding_window", "is missing, but layer_types needs it");
    }
    spec.layers[i].window = slides_here ? window : 0;
  }
  return {};
}

std::vector<double> alibi_slopes(std::int64_t heads) {
  std::int64_t power = 1;
  while (2 * power <= heads) power *= 2;
  std::vector<double> slopes;
  // Of n heads, n a power of two, head i has 2^(-8 (i + 1) / n). Those that are left take every other one of 2n.
  for (std::int64_t i = 0; i < power; ++i) {
    slopes.push_back(std::exp2(-8.0 * static_cast<double>(i + 1) / static_cast<double>(power)));
  }
  for (std::int64_t i = 0; power + i < heads; ++i) {
    slopes.push_back(std::exp2(-4.0 * static_cast<double>(2 * i + 1) / static_cast<double>(power)));
  }
  return slopes;
}

}  // namespace lanner::model::arch
