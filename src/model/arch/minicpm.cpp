// MiniCPM 1, 2 and 4 (arXiv 2404.06395): Llama with scales on the embedding, on what layers add, and on the logits.

#include <cmath>

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {
namespace {

/// scale_depth / sqrt(layers) and dim_model_base / hidden_size; a GGUF has both computed, the second one upside down.
Status read_scales(const JsonFields& config, DecoderSpec& spec) {
  const double layers = std::sqrt(static_cast<double>(spec.layers.size()));
  LANNER_ASSIGN_OR_RETURN(spec.embedding_scale, config.number_or("scale_emb", 1e-3, 1e6, 1.0));
  LANNER_ASSIGN_OR_RETURN(const double depth, config.number_or("scale_depth", 1e-3, 1e6, 1.0));
  LANNER_ASSIGN_OR_RETURN(spec.residual_scale, config.number_or("gguf_residual_scale", 1e-6, 1e6, depth / layers));
  LANNER_ASSIGN_OR_RETURN(const double base, config.number_or("dim_model_base", 1.0, 1e6, 1.0));
  const double divisor = static_cast<double>(spec.hidden) / base;
  LANNER_ASSIGN_OR_RETURN(const double logits, config.number_or("gguf_logit_scale", 1e-6, 1e6, divisor));
  spec.logit_scale = 1.0 / logits;
  return {};
}

}  // namespace

Result<DecoderSpec> read_minicpm(const Checkpoint& checkpoint, const JsonFields& config) {
  if (config.has("sparse_config")) return config.not_supported("sparse_config", "sparse attention is not implemented");
  Layout layout;
  LANNER_ASSIGN_OR_RETURN(layout.qkv_bias, config.boolean_or("attention_bias", false));
  layout.o_bias = layout.qkv_bias;
  layout.pairwise = is_gguf(checkpoint);
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_usual(checkpoint, config, layout, {.tied = true}));
  if (is_gguf(checkpoint)) {
    LANNER_RETURN_IF_ERROR(refuse_partial_rotation(config, spec));
    // Files from before the scales were written have none of the three keys, and the numbers of MiniCPM-2B.
    if (!config.has("scale_emb")) {
      return config.not_supported("scale_emb", "is missing; convert the model anew with today's llama.cpp");
    }
  }
  LANNER_RETURN_IF_ERROR(read_scales(config, spec));
  return spec;
}

}  // namespace lanner::model::arch
