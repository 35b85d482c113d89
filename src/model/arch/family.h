#pragma once
// What the files beside this one share: the sizes that most configurations name alike, and layers of the usual parts
// whose tensors are called and laid out in some way.
//
// Most files read sizes, say in a Layout what their checkpoints call and fuse, let add_layers() write all layers, and
// change what differs from layer to layer. docs/howto/add_a_model.md walks through one.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_config.h"
#include "model/decoder_spec.h"
#include "model/json_reader.h"

namespace lanner::model::arch {

/// Names of tensors without ".weight"; Llama's in Transformers where a family does not change them.
struct Names {
  std::string_view layer = "model.layers.{}.";  // in front of the names up to mlp_post_norm
  std::string_view attention_norm = "input_layernorm";
  std::string_view q = "self_attn.q_proj";
  std::string_view k = "self_attn.k_proj";
  std::string_view v = "self_attn.v_proj";
  std::string_view qkv = "self_attn.qkv_proj";  // where they are one tensor
  std::string_view o = "self_attn.o_proj";
  std::string_view q_norm = "self_attn.q_norm";
  std::string_view k_norm = "self_attn.k_norm";
  std::string_view attention_post_norm = "post_self_attn_layernorm";
  std::string_view mlp_norm = "post_attention_layernorm";
  std::string_view gate = "mlp.gate_proj";
  std::string_view up = "mlp.up_proj";
  std::string_view gate_up = "mlp.gate_up_proj";  // where they are one tensor
  std::string_view down = "mlp.down_proj";
  std::string_view mlp_post_norm = "post_mlp_layernorm";
  std::string_view embedding = "model.embed_tokens";
  std::string_view final_norm = "model.norm";
  std::string_view head = "lm_head";
};

/// How the rows of q, k and v lie.
enum class QkvRows : std::uint8_t {
  kSeparate,
  kStacked,   // one tensor: all of q, all of k, all of v
  kByKvHead,  // one tensor: for each key-value head its query heads, its key head, its value head
};

struct Layout {
  Names names;
  QkvRows qkv = QkvRows::kSeparate;
  bool has_gate = true;
  bool fused_gate_up = false;  // one tensor: gate, then up
  bool qk_norms = false;
  bool post_norms = false;
  bool norm_biases = false;
  bool pairwise = false;  // the elements of a head that rotate are neighbouring pairs, not halves
  // Which projections have a bias. Those of a GGUF file are seen from its tensors.
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
};

inline bool is_gguf(const Checkpoint& checkpoint) { return checkpoint.kind() == CheckpointKind::kGguf; }

/// The layout of a GGUF file: llama.cpp's names for the same parts, q, k and v fused where the file has them so. What
/// `layout` says of gates, norms and pairs stays.
Layout gguf_layout(const Checkpoint& checkpoint, Layout layout);

/// What a family's configurations leave out.
struct FamilyDefaults {
  RopeDefaults rope;
  bool tied = false;  // tie_word_embeddings
  std::int64_t max_position = 2048;
  std::string_view epsilon = "rms_norm_eps";
  std::string_view activation = "hidden_act";
  std::string_view activation_name = "silu";
};

/// A whole decoder of the usual fields: sizes, one rope, an activation, add_layers(). `layout` is that of a folder; for
/// a GGUF file gguf_layout() is taken of it.
Result<DecoderSpec> read_usual(const Checkpoint& checkpoint, const JsonFields& config, const Layout& layout,
                               const FamilyDefaults& defaults = {});

/// num_key_value_heads, head_dim and max_position_embeddings, where `spec` has heads and hidden already.
Status read_head_sizes(const JsonFields& config, std::int64_t max_position, DecoderSpec& spec);

/// The first of these fields that the configuration has, or the first of all, for the error that it is missing.
std::string_view first_field(const JsonFields& config, std::initializer_list<std::string_view> fields);

Result<std::int64_t> read_layer_count(const JsonFields& config, std::string_view field = "num_hidden_layers");

/// Refuses by name what no architecture here implements: experts, mixed rotary sections.
Status refuse_unknown_features(const JsonFields& config);

/// For GGUF files whose converter turned whole heads into pairs: with a partial rotation nothing would fit.
Status refuse_partial_rotation(const JsonFields& config, const DecoderSpec& spec);

/// Refuses a switch that is there and not as the code here assumes.
Status require(const JsonFields& config, std::string_view field, bool value);

/// `count` layers, and the ends of the model with the head tied to the embedding or not.
void add_layers(const Checkpoint& checkpoint, const Layout& layout, std::int64_t count, bool tied, DecoderSpec& spec);

/// sliding_window; 0 for none. `fallback` where the field is absent, which is not the same as null.
Result<std::int64_t> read_window(const JsonFields& config, std::int64_t fallback);

/// Gives `window` to the layers that slide: those that layer_types says, or else those that `slides` picks.
Status set_windows(const JsonFields& config, std::int64_t window, const std::function<bool(std::int64_t)>& slides,
                   DecoderSpec& spec);

/// Slopes of ALiBi (arXiv 2108.12409) for any number of heads, steepest first within each power of two.
std::vector<double> alibi_slopes(std::int64_t heads);

}  // namespace lanner::model::arch
