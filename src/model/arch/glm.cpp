// GLM-4 as Transformers has it: GlmForCausalLM (glm-4-9b-chat-hf) and Glm4ForCausalLM (GLM-4-0414), which has norms
// behind attention and MLP too. Half of each head rotates, in neighbouring pairs.

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {
namespace {

Result<DecoderSpec> read_either(const Checkpoint& checkpoint, const JsonFields& config, bool post_norms) {
  Layout layout;
  layout.fused_gate_up = true;
  layout.pairwise = true;
  layout.post_norms = post_norms;
  LANNER_ASSIGN_OR_RETURN(layout.qkv_bias, config.boolean_or("attention_bias", true));
  return read_usual(checkpoint, config, layout, {.rope = {.rotary_share = 0.5}, .max_position = 131072});
}

}  // namespace

Result<DecoderSpec> read_glm(const Checkpoint& checkpoint, const JsonFields& config) {
  return read_either(checkpoint, config, false);
}

Result<DecoderSpec> read_glm4(const Checkpoint& checkpoint, const JsonFields& config) {
  return read_either(checkpoint, config, true);
}

}  // namespace lanner::model::arch
