// Phi-3, 3.5 mini and Phi-4 (arXiv 2404.14219): Llama with q, k, v and gate, up in one tensor each, a window in some
// sizes, LongRoPE in the long ones, and in Phi-4 mini a part of each head that does not rotate.

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {

Result<DecoderSpec> read_phi3(const Checkpoint& checkpoint, const JsonFields& config) {
  Layout layout;
  layout.qkv = QkvRows::kStacked;
  layout.fused_gate_up = true;
  LANNER_RETURN_IF_ERROR(require(config, "attention_bias", false));
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_usual(checkpoint, config, layout, {.max_position = 4096}));
  // A GGUF says 0 for none. llama.cpp passes the window over; the model was trained with it.
  LANNER_ASSIGN_OR_RETURN(const std::int64_t window, read_window(config, 0));
  LANNER_RETURN_IF_ERROR(set_windows(config, window, [&](std::int64_t) { return window > 0; }, spec));
  return spec;
}

}  // namespace lanner::model::arch
