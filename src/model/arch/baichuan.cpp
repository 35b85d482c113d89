// Baichuan 1 and 2 (arXiv 2309.10305): Llama with q, k and v in one tensor. The 13B models have ALiBi in place of a
// rope; Baichuan 2 divides the head's rows by their norms. No field of the configuration says either: the published
// code differs by the size of the model, whose 13B configuration has no max_position_embeddings, and by the vocabulary.

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {
namespace {

constexpr std::int64_t kHidden7B = 4096;
constexpr std::int64_t kHidden13B = 5120;
constexpr std::int64_t kVocabBaichuan2 = 125696;

bool has_alibi(const Checkpoint& checkpoint, const JsonFields& config, const DecoderSpec& spec) {
  if (spec.hidden == kHidden7B || spec.hidden == kHidden13B) return spec.hidden == kHidden13B;
  return !is_gguf(checkpoint) && !config.has("max_position_embeddings");
}

}  // namespace

Result<DecoderSpec> read_baichuan(const Checkpoint& checkpoint, const JsonFields& config) {
  Layout layout;
  layout.names.qkv = "self_attn.W_pack";
  layout.qkv = QkvRows::kStacked;
  layout.pairwise = is_gguf(checkpoint);
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_usual(checkpoint, config, layout));
  if (spec.kv_heads != spec.heads) {
    return config.not_supported("num_key_value_heads", "grouped queries are no part of this class");
  }
  LANNER_ASSIGN_OR_RETURN(
      spec.max_position,
      config.integer_or(first_field(config, {"max_position_embeddings", "model_max_length"}), 1, kMaxPosition, 4096));
  spec.normalize_head = spec.vocab == kVocabBaichuan2;  // a file whose head is normalized already stays as it is
  if (!has_alibi(checkpoint, config, spec)) {
    if (is_gguf(checkpoint)) LANNER_RETURN_IF_ERROR(refuse_partial_rotation(config, spec));
    return spec;
  }
  spec.ropes.clear();
  spec.alibi_slopes = alibi_slopes(spec.heads);
  for (LayerSpec& layer : spec.layers) layer.rope = -1;
  return spec;
}

}  // namespace lanner::model::arch
