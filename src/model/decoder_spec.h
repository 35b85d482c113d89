#pragma once
// What a decoder is made of: numbers and tensor names, no weights and no code.
//
// A file under arch/ turns a checkpoint's configuration into one DecoderSpec; Decoder (decoder.h) builds and runs
// it without knowing the architecture. Everything in it has been checked against the limits below, so that
// later code may multiply these numbers without overflow.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lanner::model {

enum class RopeKind : std::uint8_t { kDefault, kLinear, kDynamicNtk, kLlama3, kYarn, kLongRope };

/// Rotary embedding, RoFormer (arXiv 2104.09864) with the scalings of Transformers' modeling_rope_utils.
/// Rotation is in halves: element i turns with element i + rotary_dim / 2.
struct RopeSpec {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000.0;
  std::int64_t rotary_dim = 0;  // leading elements of a head that rotate
  double factor = 1.0;
  std::int64_t original_max_position = 0;  // llama3, yarn, longrope; 0: the same as max_position
  double low_freq_factor = 1.0;            // llama3
  double high_freq_factor = 4.0;           // llama3
  double beta_fast = 32.0;                 // yarn
  double beta_slow = 1.0;                  // yarn
  double attention_factor = 0.0;           // yarn, longrope; 0: derived from factor
  std::vector<double> short_factors;       // longrope: (rotary_dim / 2) divisors up to original_max_position
  std::vector<double> long_factors;        // longrope: and for longer sessions
};

enum class Activation : std::uint8_t { kSilu, kGelu, kGeluTanh };

/// How the rows of a projection lie in the checkpoint.
enum class RowOrder : std::uint8_t {
  kPlain,
  /// Rotary pairs are adjacent rows: llama.cpp's q and k of Llama-family files, and ChatGLM's and GLM's. Undone at
  /// load: within the first `rotary_dim` rows of each head, row 2i goes to i and row 2i + 1 to rotary_dim / 2 + i.
  kPairwiseRope,
};

/// Rows of a larger tensor that hold one projection: block b has `block_rows` rows from `first + b * stride` on.
/// [q; k; v] of Baichuan is three slices of one block; InternLM2's wqkv has a block of each for every KV head.
struct RowSlice {
  std::int64_t tensor_rows = 0;
  std::int64_t first = 0;
  std::int64_t block_rows = 0;  // divides the projection's rows
  std::int64_t stride = 0;
};

/// One projection in the checkpoint: (rows, cols) = (output, input) features.
struct ProjectionSpec {
  std::string weight;
  std::string bias;  // empty: none
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::optional<RowSlice> slice;  // absent: the tensor (and its bias) has just these rows
  RowOrder row_order = RowOrder::kPlain;
  std::int64_t heads = 0;       // for kPairwiseRope: how many heads the rows hold
  std::int64_t rotary_dim = 0;  // for kPairwiseRope: how many leading rows of a head are pairs
};

/// A norm's tensors; its size is known where it is used.
struct NormSpec {
  std::string weight;  // empty: no norm
  std::string bias;    // empty: none
};

struct LayerSpec {
  NormSpec attention_norm;  // (hidden)
  ProjectionSpec q, k, v, o;
  NormSpec q_norm, k_norm;       // (head_dim), over each head, before the rotation
  NormSpec attention_post_norm;  // (hidden), over the product of o
  NormSpec mlp_norm;             // (hidden)
  ProjectionSpec gate;           // rows 0: an MLP without a gate
  ProjectionSpec up, down;
  NormSpec mlp_post_norm;   // (hidden), over the product of down
  std::int64_t window = 0;  // tokens that a query sees, itself included; 0: all
  std::int32_t rope = 0;    // which of DecoderSpec::ropes; -1: nothing rotates
};

enum class NormType : std::uint8_t { kRms, kLayer };

struct DecoderSpec {
  std::string architecture;  // as config.json names it, such as LlamaForCausalLM
  std::int64_t vocab = 0;    // rows of the embedding
  std::int64_t hidden = 0;
  std::int64_t intermediate = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;  // divides heads
  std::int64_t head_dim = 0;
  std::int64_t max_position = 0;  // the longest context the model was trained for
  NormType norm_type = NormType::kRms;
  double norm_eps = 1e-5;
  double norm_gain_offset = 0.0;  // added to every norm's gain as stored: Gemma's checkpoints keep gain - 1
  Activation activation = Activation::kSilu;
  bool parallel_layers = false;  // attention and MLP read the same x, and both are added to it (Falcon)
  double attention_scale = 0.0;  // multiplies the scores; 0: 1 / sqrt(head_dim)
  double attention_soft_cap = 0.0;
  std::vector<double> alibi_slopes;  // (heads) or empty
  double embedding_scale = 1.0;
  double residual_scale = 1.0;  // of what attention and MLP add
  double logit_scale = 1.0;
  double logit_soft_cap = 0.0;
  bool normalize_head = false;  // the head's rows are divided by their Euclidean norm (Baichuan 2)
  std::vector<RopeSpec> ropes;  // empty: no layer rotates
  std::string embedding;        // (vocab, hidden)
  NormSpec final_norm;          // (hidden)
  std::string head;             // (vocab, hidden); equal to `embedding` when they are tied
  std::string head_bias;        // (vocab); empty: none
  std::vector<LayerSpec> layers;
};

/// Limits that every checked spec keeps.
inline constexpr std::int64_t kMaxLayers = 1024;
inline constexpr std::int64_t kMaxVocab = 1 << 21;
inline constexpr std::int64_t kMaxHidden = 1 << 17;
inline constexpr std::int64_t kMaxIntermediate = 1 << 19;
inline constexpr std::int64_t kMaxHeads = 1024;
inline constexpr std::int64_t kMaxHeadDim = 1024;
inline constexpr std::int64_t kMaxPosition = 1 << 25;

}  // namespace lanner::model
