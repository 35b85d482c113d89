// Reads rotary embeddings out of a configuration: the fields and the defaults of Transformers' modeling_rope_utils.

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <string>

#include "model/decoder_config.h"

namespace lanner::model {
namespace {

constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;

/// rope_parameters, or what it was before: rope_scaling. Absent when neither is there.
Result<std::optional<JsonFields>> rope_object(const JsonFields& config) {
  LANNER_ASSIGN_OR_RETURN(const auto parameters, config.object("rope_parameters"));
  LANNER_ASSIGN_OR_RETURN(const auto scaling, config.object("rope_scaling"));
  return scaling ? scaling : parameters;  // Transformers 5 lets the older key win
}

Result<RopeKind> read_rope_kind(const JsonFields& rope) {
  const std::string_view key = rope.has("rope_type") ? "rope_type" : "type";
  LANNER_ASSIGN_OR_RETURN(const std::string name, rope.text_or(key, "default"));
  if (name == "default") return RopeKind::kDefault;
  if (name == "linear") return RopeKind::kLinear;
  if (name == "dynamic") return RopeKind::kDynamicNtk;
  if (name == "llama3") return RopeKind::kLlama3;
  if (name == "longrope" || name == "su") return RopeKind::kLongRope;
  // Early Phi-3 files say yarn where they mean longrope; the lists tell.
  if (name == "yarn") return rope.has("long_factor") ? RopeKind::kLongRope : RopeKind::kYarn;
  return rope.not_supported(
      key, fmt::format("'{}' is not implemented; known are default, linear, dynamic, llama3, yarn, longrope",
                       printable(name)));
}

double yarn_mscale(double factor, double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

Status read_yarn(const JsonFields& rope, RopeSpec& spec) {
  LANNER_ASSIGN_OR_RETURN(spec.beta_fast, rope.number_or("beta_fast", 1e-6, 1e6, 32.0));
  LANNER_ASSIGN_OR_RETURN(spec.beta_slow, rope.number_or("beta_slow", 1e-6, 1e6, 1.0));
  if (spec.beta_fast < spec.beta_slow) return rope.wrong("beta_fast", "is less than beta_slow");
  LANNER_ASSIGN_OR_RETURN(const bool truncate, rope.boolean_or("truncate", true));
  if (!truncate) return rope.not_supported("truncate", "only true is implemented");
  LANNER_ASSIGN_OR_RETURN(spec.attention_factor, rope.number_or("attention_factor", 1e-6, 1e6, 0.0));
  LANNER_ASSIGN_OR_RETURN(const double mscale, rope.number_or("mscale", 0.0, 1e3, 0.0));
  LANNER_ASSIGN_OR_RETURN(const double mscale_all, rope.number_or("mscale_all_dim", 0.0, 1e3, 0.0));
  if (spec.attention_factor == 0.0 && mscale != 0.0 && mscale_all != 0.0) {
    spec.attention_factor = yarn_mscale(spec.factor, mscale) / yarn_mscale(spec.factor, mscale_all);
  }
  return {};
}

Status read_llama3(const JsonFields& rope, RopeSpec& spec) {
  LANNER_ASSIGN_OR_RETURN(spec.low_freq_factor, rope.number("low_freq_factor", 1e-6, 1e6));
  LANNER_ASSIGN_OR_RETURN(spec.high_freq_factor, rope.number("high_freq_factor", 1e-6, 1e6));
  // Equal ones would divide by zero in the band between them.
  if (spec.low_freq_factor >= spec.high_freq_factor) {
    return rope.wrong("low_freq_factor", "is not less than high_freq_factor");
  }
  return {};
}

Status read_longrope(const JsonFields& rope, RopeSpec& spec) {
  if (spec.original_max_position < 2) return rope.wrong("original_max_position_embeddings", "is less than 2");
  LANNER_ASSIGN_OR_RETURN(spec.attention_factor, rope.number_or("attention_factor", 1e-6, 1e6, 0.0));
  LANNER_ASSIGN_OR_RETURN(spec.short_factors, rope.numbers("short_factor", spec.rotary_dim / 2, 1e-3, kMaxFactor));
  LANNER_ASSIGN_OR_RETURN(spec.long_factors, rope.numbers("long_factor", spec.rotary_dim / 2, 1e-3, kMaxFactor));
  return {};
}

/// The context that the scaling started from. Phi-3 has it beside the object, where it wins.
Result<std::int64_t> read_original_context(const JsonFields& config, const JsonFields& rope,
                                           std::int64_t max_position) {
  constexpr std::string_view kKey = "original_max_position_embeddings";
  return config.has(kKey) ? config.integer(kKey, 1, kMaxPosition)
                          : rope.integer_or(kKey, 1, kMaxPosition, max_position);
}

Status read_scaling(const JsonFields& config, const JsonFields& rope, std::int64_t max_position, RopeSpec& spec) {
  LANNER_ASSIGN_OR_RETURN(spec.kind, read_rope_kind(rope));
  if (spec.kind == RopeKind::kDefault) return {};
  LANNER_ASSIGN_OR_RETURN(spec.original_max_position, read_original_context(config, rope, max_position));
  const bool derives_factor = spec.kind == RopeKind::kLongRope || spec.kind == RopeKind::kYarn;
  if (derives_factor && !rope.has("factor")) {
    spec.factor = static_cast<double>(max_position) / static_cast<double>(spec.original_max_position);
  } else {
    LANNER_ASSIGN_OR_RETURN(spec.factor, rope.number("factor", 1e-3, kMaxFactor));
  }
  // llama.cpp multiplies this with a factor of its own, which Transformers does not have.
  LANNER_ASSIGN_OR_RETURN(const double gguf_factor, rope.number_or("gguf_attn_factor", 0.0, 1e6, 1.0));
  if (gguf_factor != 1.0) return rope.not_supported("gguf_attn_factor", "only 1 is implemented");
  if (spec.kind == RopeKind::kYarn) return read_yarn(rope, spec);
  if (spec.kind == RopeKind::kLlama3) return read_llama3(rope, spec);
  if (spec.kind == RopeKind::kLongRope) return read_longrope(rope, spec);
  return {};
}

/// A number in the first object that has it.
Result<double> first_number(const std::optional<JsonFields>& inner, const JsonFields& outer, std::string_view key,
                            double low, double high, double fallback) {
  if (inner && inner->has(key)) return inner->number(key, low, high);
  return outer.number_or(key, low, high, fallback);
}

}  // namespace

Result<RopeSpec> read_rope_object(const JsonFields& config, const std::optional<JsonFields>& rope,
                                  std::int64_t head_dim, std::int64_t max_position, const RopeDefaults& defaults) {
  RopeSpec spec;
  LANNER_ASSIGN_OR_RETURN(spec.theta, first_number(rope, config, "rope_theta", 1.0, kMaxTheta, defaults.theta));
  LANNER_ASSIGN_OR_RETURN(const double share,
                          first_number(rope, config, "partial_rotary_factor", 1e-3, 1.0, defaults.rotary_share));
  // A GGUF's share is a quotient: its product with head_dim may fall short of the whole number by one rounding.
  spec.rotary_dim = static_cast<std::int64_t>(static_cast<double>(head_dim) * share + 1e-6);
  if (rope) LANNER_RETURN_IF_ERROR(read_scaling(config, *rope, max_position, spec));
  return spec;
}

Result<RopeSpec> read_rope(const JsonFields& config, std::int64_t head_dim, std::int64_t max_position,
                           const RopeDefaults& defaults) {
  LANNER_ASSIGN_OR_RETURN(const auto rope, rope_object(config));
  return read_rope_object(config, rope, head_dim, max_position, defaults);
}

}  // namespace lanner::model
