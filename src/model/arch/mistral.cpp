// Mistral (arXiv 2310.06825): Llama with a window over all layers.

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {

Result<DecoderSpec> read_mistral(const Checkpoint& checkpoint, const JsonFields& config) {
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_usual(checkpoint, config, {}, {.max_position = 131072}));
  LANNER_ASSIGN_OR_RETURN(const std::int64_t window, read_window(config, 4096));
  LANNER_RETURN_IF_ERROR(set_windows(config, window, [](std::int64_t) { return true; }, spec));
  return spec;
}

}  // namespace lanner::model::arch
