#include "model/decoder_config.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <string_view>

#include "model/arch/registry.h"
#include "model/gguf_metadata.h"

namespace lanner::model {
namespace {

constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;

std::string known_architectures() {
  std::string names;
  for (const arch::Architecture& known : arch::kArchitectures) {
    names += (names.empty() ? "" : ", ") + std::string(known.name);
  }
  return names;
}

Result<const arch::Architecture*> find_architecture(const JsonFields& config) {
  std::string name;
  std::string_view field = "model_type";
  if (const Json* list = config.find("architectures")) {
    field = "architectures";
    if (!list->is_array() || list->size() != 1 || !list->front().is_string()) {
      return config.wrong(field, "is not a list of one name");
    }
    name = list->front().get<std::string>();
  } else {
    Result<std::string> type = config.text("model_type");
    if (!type.ok()) return config.wrong("architectures", "is missing, and so is model_type");
    name = *type;
  }
  for (const arch::Architecture& known : arch::kArchitectures) {
    if (name == (field == "architectures" ? known.name : known.model_type)) return &known;
  }
  return config.not_supported(field,
                              fmt::format("'{}' is not known; known are: {}", printable(name), known_architectures()));
}

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
  if (name == "yarn") return RopeKind::kYarn;
  return rope.not_supported(
      key, fmt::format("'{}' is not implemented; known are default, linear, dynamic, llama3, yarn", printable(name)));
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

Status read_rope_scaling(const JsonFields& rope, std::int64_t max_position, RopeSpec& spec) {
  LANNER_ASSIGN_OR_RETURN(spec.kind, read_rope_kind(rope));
  if (spec.kind == RopeKind::kDefault) return {};
  LANNER_ASSIGN_OR_RETURN(spec.factor, rope.number("factor", 1e-3, kMaxFactor));
  LANNER_ASSIGN_OR_RETURN(spec.original_max_position,
                          rope.integer_or("original_max_position_embeddings", 1, kMaxPosition, max_position));
  // llama.cpp multiplies this with a factor of its own, which Transformers does not have.
  LANNER_ASSIGN_OR_RETURN(const double gguf_factor, rope.number_or("gguf_attn_factor", 0.0, 1e6, 1.0));
  if (gguf_factor != 1.0) return rope.not_supported("gguf_attn_factor", "only 1 is implemented");
  if (spec.kind == RopeKind::kYarn) return read_yarn(rope, spec);
  if (spec.kind == RopeKind::kLlama3) return read_llama3(rope, spec);
  return {};
}

/// A number in the first object that has it.
Result<double> first_number(const std::optional<JsonFields>& inner, const JsonFields& outer, std::string_view key,
                            double low, double high, double fallback) {
  if (inner && inner->has(key)) return inner->number(key, low, high);
  return outer.number_or(key, low, high, fallback);
}

struct Range {
  std::string_view name;
  std::int64_t value;
  std::int64_t high;
};

/// Every number of the spec against decoder_spec.h, whichever architecture filled it in.
Status check_ranges(const DecoderSpec& spec, const JsonFields& config) {
  const Range ranges[] = {{"vocabulary", spec.vocab, kMaxVocab},
                          {"hidden size", spec.hidden, kMaxHidden},
                          {"intermediate size", spec.intermediate, kMaxIntermediate},
                          {"attention heads", spec.heads, kMaxHeads},
                          {"key-value heads", spec.kv_heads, kMaxHeads},
                          {"head dimension", spec.head_dim, kMaxHeadDim},
                          {"context", spec.max_position, kMaxPosition},
                          {"layers", static_cast<std::int64_t>(spec.layers.size()), kMaxLayers}};
  for (const Range& range : ranges) {
    if (range.value < 1 || range.value > range.high) {
      return corrupt(
          fmt::format("{}: {} of {}, allowed are 1 to {}", config.where(), range.name, range.value, range.high));
    }
  }
  if (spec.heads % spec.kv_heads != 0) {
    return config.wrong("num_key_value_heads", fmt::format("{} does not divide {} {}", spec.kv_heads,
                                                           config.name("num_attention_heads"), spec.heads));
  }
  if (spec.head_dim % 2 != 0 || spec.rope.rotary_dim % 2 != 0 || spec.rope.rotary_dim < 2 ||
      spec.rope.rotary_dim > spec.head_dim) {
    return config.wrong(
        "head_dim", fmt::format("{} of {} elements rotate, which are not pairs", spec.rope.rotary_dim, spec.head_dim));
  }
  if (!(spec.norm_eps > 0.0) || !std::isfinite(spec.norm_eps)) {
    return config.wrong("rms_norm_eps", fmt::format("{} is not positive", spec.norm_eps));
  }
  return {};
}

Status check_projection(const Checkpoint& checkpoint, const ProjectionSpec& projection) {
  LANNER_RETURN_IF_ERROR(checkpoint.check_matrix(projection.weight, projection.rows, projection.cols));
  if (projection.bias.empty()) return {};
  return checkpoint.check_vector(projection.bias, projection.rows);
}

Status check_layer(const Checkpoint& checkpoint, const LayerSpec& layer, std::int64_t hidden) {
  LANNER_RETURN_IF_ERROR(checkpoint.check_vector(layer.attention_norm, hidden));
  LANNER_RETURN_IF_ERROR(checkpoint.check_vector(layer.mlp_norm, hidden));
  for (const ProjectionSpec* projection :
       {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
    LANNER_RETURN_IF_ERROR(check_projection(checkpoint, *projection));
  }
  return {};
}

Status check_tensors(const Checkpoint& checkpoint, const DecoderSpec& spec) {
  LANNER_RETURN_IF_ERROR(checkpoint.check_matrix(spec.embedding, spec.vocab, spec.hidden));
  LANNER_RETURN_IF_ERROR(checkpoint.check_vector(spec.final_norm, spec.hidden));
  LANNER_RETURN_IF_ERROR(checkpoint.check_matrix(spec.head, spec.vocab, spec.hidden));
  for (const LayerSpec& layer : spec.layers) LANNER_RETURN_IF_ERROR(check_layer(checkpoint, layer, spec.hidden));
  return {};
}

}  // namespace

JsonFields config_fields(const Checkpoint& checkpoint) {
  if (checkpoint.kind() == CheckpointKind::kGguf) return gguf_config_fields(checkpoint.config(), checkpoint.path());
  return {checkpoint.config(), checkpoint.path() + "/config.json"};
}

Result<RopeSpec> read_rope(const JsonFields& config, std::int64_t head_dim, std::int64_t max_position) {
  RopeSpec spec;
  LANNER_ASSIGN_OR_RETURN(const auto rope, rope_object(config));
  LANNER_ASSIGN_OR_RETURN(spec.theta, first_number(rope, config, "rope_theta", 1.0, kMaxTheta, 10000.0));
  LANNER_ASSIGN_OR_RETURN(const double share, first_number(rope, config, "partial_rotary_factor", 1e-3, 1.0, 1.0));
  spec.rotary_dim = static_cast<std::int64_t>(static_cast<double>(head_dim) * share);
  if (rope) LANNER_RETURN_IF_ERROR(read_rope_scaling(*rope, max_position, spec));
  return spec;
}

Result<Activation> read_activation(const JsonFields& config) {
  LANNER_ASSIGN_OR_RETURN(const std::string name, config.text_or("hidden_act", "silu"));
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  return config.not_supported("hidden_act", fmt::format("'{}' is not implemented", printable(name)));
}

Result<DecoderSpec> read_decoder_spec(const Checkpoint& checkpoint) {
  const JsonFields config = config_fields(checkpoint);
  LANNER_ASSIGN_OR_RETURN(const arch::Architecture* architecture, find_architecture(config));
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, architecture->read(checkpoint, config));
  spec.architecture = std::string(architecture->name);
  LANNER_RETURN_IF_ERROR(check_ranges(spec, config));
  LANNER_RETURN_IF_ERROR(check_tensors(checkpoint, spec));
  return spec;
}

}  // namespace lanner::model
