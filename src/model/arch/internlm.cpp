// InternLM (1) and InternLM 3: Llama with biases of their own, rope of InternLM 1 in an object `rotary`.

#include <fmt/format.h>

#include <string>

#include "model/arch/family.h"
#include "model/arch/registry.h"

namespace lanner::model::arch {
namespace {

/// rotary: {"type": "origin" | "dynamic", "base": …, "scaling_factor": …}; absent in the first configurations.
Status read_rotary(const JsonFields& config, RopeSpec& rope) {
  LANNER_ASSIGN_OR_RETURN(const auto rotary, config.object("rotary"));
  if (!rotary) return {};
  LANNER_ASSIGN_OR_RETURN(rope.theta, rotary->number_or("base", 1.0, 1e12, rope.theta));
  LANNER_ASSIGN_OR_RETURN(const std::string type, rotary->text_or("type", "origin"));
  if (type == "origin") return {};
  if (type != "dynamic") {
    return rotary->not_supported("type", fmt::format("'{}' is not implemented", printable(type)));
  }
  rope.kind = RopeKind::kDynamicNtk;
  LANNER_ASSIGN_OR_RETURN(rope.factor, rotary->number_or("scaling_factor", 1e-3, 1e6, 1.0));
  return {};
}

}  // namespace

Result<DecoderSpec> read_internlm(const Checkpoint& checkpoint, const JsonFields& config) {
  Layout layout;
  LANNER_ASSIGN_OR_RETURN(layout.qkv_bias, config.boolean_or("bias", true));
  layout.o_bias = layout.qkv_bias;
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, read_usual(checkpoint, config, layout));
  LANNER_RETURN_IF_ERROR(read_rotary(config, spec.ropes.front()));
  return spec;
}

Result<DecoderSpec> read_internlm3(const Checkpoint& checkpoint, const JsonFields& config) {
  Layout layout;
  // Transformers writes these two fields as attention_bias and mlp_bias.
  LANNER_ASSIGN_OR_RETURN(layout.qkv_bias,
                          config.boolean_or(first_field(config, {"qkv_bias", "attention_bias"}), false));
  LANNER_ASSIGN_OR_RETURN(layout.mlp_bias, config.boolean_or(first_field(config, {"bias", "mlp_bias"}), false));
  layout.o_bias = layout.mlp_bias;
  return read_usual(checkpoint, config, layout, {.max_position = 32768});
}

}  // namespace lanner::model::arch
