// InternLM 2 and 2.5 (arXiv 2403.17297): Llama under other names, with the rows of q, k and v of each key-value head
// together in one tensor.

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {

Result<DecoderSpec> read_internlm2(const Checkpoint& checkpoint, const JsonFields& config) {
  Layout layout;
  layout.names = {.attention_norm = "attention_norm",
                  .qkv = "attention.wqkv",
                  .o = "attention.wo",
                  .mlp_norm = "ffn_norm",
                  .gate = "feed_forward.w1",
                  .up = "feed_forward.w3",
                  .down = "feed_forward.w2",
                  .embedding = "model.tok_embeddings",
                  .head = "output"};
  layout.qkv = QkvRows::kByKvHead;
  LANNER_ASSIGN_OR_RETURN(layout.qkv_bias, config.boolean_or("bias", false));
  layout.o_bias = layout.qkv_bias;
  layout.pairwise = is_gguf(checkpoint);
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_usual(checkpoint, config, layout));
  if (is_gguf(checkpoint)) LANNER_RETURN_IF_ERROR(refuse_partial_rotation(config, spec));
  return spec;
}

}  // namespace lanner::model::arch
