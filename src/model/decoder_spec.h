#pragma once
// What a decoder is made of: numbers and tensor names, no weights and no code.
//
// A file under arch/ turns a checkpoint's configuration into one DecoderSpec; Decoder (decoder.h) builds and runs
// it without knowing the architecture. Everything in it has been checked against the limits below, so that
// later code may multiply these numbers without overflow.

#include <cstdint>
#include <string>
#include <vector>

namespace lanner::model {

enum class RopeKind : std::uint8_t { kDefault, kLinear, kDynamicNtk, kLlama3, kYarn };

/// Rotary embedding, RoFormer (arXiv 2104.09864) with the scalings of Transformers' modeling_rope_utils.
/// Rotation is in halves: element i turns with element i + rotary_dim / 2.
struct RopeSpec {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000.0;
  std::int64_t rotary_dim = 0;  // leading elements of a head that rotate
  double factor = 1.0;
  std::int64_t original_max_position = 0;  // llama3, yarn; 0: the same as max_position
  double low_freq_factor = 1.0;            // llama3
  double high_freq_factor = 4.0;           // llama3
  double beta_fast = 32.0;                 // yarn
  double beta_slow = 1.0;                  // yarn
  double attention_factor = 0.0;           // yarn; 0: derived from factor
};

enum class Activation : std::uint8_t { kSilu, kGelu, kGeluTanh };

/// How the rows of a projection lie in the checkpoint.
enum class RowOrder : std::uint8_t {
  kPlain,
  kPairwiseRope,  // llama.cpp's q and k of Llama-family files: rotary pairs are adjacent rows; undone at load
};

/// One projection in the checkpoint: (rows, cols) = (output, input) features.
struct ProjectionSpec {
  std::string weight;
  std::string bias;  // empty: none
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  RowOrder row_order = RowOrder::kPlain;
  std::int64_t heads = 0;  // for kPairwiseRope: how many heads the rows hold
};

struct LayerSpec {
  std::string attention_norm;  // (hidden)
  ProjectionSpec q, k, v, o;
  std::string mlp_norm;  // (hidden)
  ProjectionSpec gate, up, down;
};

struct DecoderSpec {
  std::string architecture;  // as config.json names it, such as LlamaForCausalLM
  std::int64_t vocab = 0;    // rows of the embedding
  std::int64_t hidden = 0;
  std::int64_t intermediate = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;  // divides heads
  std::int64_t head_dim = 0;
  std::int64_t max_position = 0;  // the longest context the model was trained for
  double norm_eps = 1e-5;
  Activation activation = Activation::kSilu;
  RopeSpec rope;
  std::string embedding;   // (vocab, hidden)
  std::string final_norm;  // (hidden)
  std::string head;        // (vocab, hidden); equal to `embedding` when they are tied
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
