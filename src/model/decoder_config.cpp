#include "model/decoder_config.h"

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "model/arch/registry.h"
#include "model/gguf_metadata.h"
#include "model/packed_checkpoint.h"
#include "model/row_order.h"

namespace lanner::model {
namespace {

constexpr std::size_t kMaxRopes = 8;
constexpr double kMaxScale = 1e6;

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
  return config.not_supported(field, fmt::format("'{}' is not known; `lanner list` says which are", printable(name)));
}

struct Range {
  std::string_view name;
  std::int64_t value;
  std::int64_t high;
};

Status check_ropes(const DecoderSpec& spec, const JsonFields& config) {
  if (spec.ropes.size() > kMaxRopes) {
    return config.not_supported("rope_parameters",
                                fmt::format("{} kinds of rope, allowed are {}", spec.ropes.size(), kMaxRopes));
  }
  for (const RopeSpec& rope : spec.ropes) {
    if (rope.rotary_dim % 2 != 0 || rope.rotary_dim < 2 || rope.rotary_dim > spec.head_dim) {
      return config.wrong("head_dim",
                          fmt::format("{} of {} elements rotate, which are not pairs", rope.rotary_dim, spec.head_dim));
    }
    if (rope.kind == RopeKind::kYarn && !(rope.theta > 1.0)) {  // it divides by the logarithm
      return config.wrong("rope_theta", fmt::format("{} is not more than 1, as yarn needs it", rope.theta));
    }
    const auto pairs = static_cast<std::size_t>(rope.rotary_dim / 2);
    if (rope.kind == RopeKind::kLongRope && (rope.short_factors.size() != pairs || rope.long_factors.size() != pairs)) {
      return config.wrong("rope_scaling", fmt::format("does not have {} short and long factors", pairs));
    }
  }
  return {};
}

/// Factors and caps: finite, and none of them makes everything zero.
Status check_scales(const DecoderSpec& spec, const JsonFields& config) {
  struct Scale {
    std::string_view name;
    double value;
    bool may_be_zero;
  };
  const Scale scales[] = {{"norm epsilon", spec.norm_eps, false},
                          {"attention scale", spec.attention_scale, true},
                          {"soft cap of the attention", spec.attention_soft_cap, true},
                          {"scale of the embedding", spec.embedding_scale, false},
                          {"scale of the residuals", spec.residual_scale, false},
                          {"scale of the logits", spec.logit_scale, false},
                          {"soft cap of the logits", spec.logit_soft_cap, true}};
  for (const Scale& scale : scales) {
    const bool good = scale.value > 0.0 || (scale.may_be_zero && scale.value == 0.0);
    if (!good || !(scale.value <= kMaxScale)) {
      return corrupt(fmt::format("{}: {} of {}, which is no positive number up to {:g}", config.where(), scale.name,
                                 scale.value, kMaxScale));
    }
  }
  if (!spec.alibi_slopes.empty() && static_cast<std::int64_t>(spec.alibi_slopes.size()) != spec.heads) {
    return corrupt(
        fmt::format("{}: {} ALiBi slopes for {} heads", config.where(), spec.alibi_slopes.size(), spec.heads));
  }
  return {};
}

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
  if (spec.head_dim % 2 != 0) return config.wrong("head_dim", fmt::format("{} is odd", spec.head_dim));
  LANNER_RETURN_IF_ERROR(check_ropes(spec, config));
  return check_scales(spec, config);
}

/// Whether the projection's rows all lie in its tensor, and its heads divide them.
bool has_good_rows(const ProjectionSpec& projection) {
  if (projection.rows < 1 || projection.cols < 1) return false;
  if (projection.row_order == RowOrder::kPairwiseRope) {
    if (projection.heads < 1 || projection.rows % projection.heads != 0) return false;
    if (projection.rotary_dim % 2 != 0 || projection.rotary_dim < 2) return false;
    if (projection.rotary_dim > projection.rows / projection.heads) return false;
  }
  if (!projection.slice) return true;
  // No number here is past the product of two limits, so that none of the sums overflows.
  constexpr std::int64_t kMaxRows = std::int64_t{1} << 40;
  const RowSlice& slice = *projection.slice;
  for (const std::int64_t number : {slice.tensor_rows, slice.first, slice.block_rows, slice.stride}) {
    if (number < 0 || number > kMaxRows) return false;
  }
  if (slice.block_rows < 1 || projection.rows % slice.block_rows != 0 || slice.stride < slice.block_rows) return false;
  const std::int64_t blocks = projection.rows / slice.block_rows;
  if (blocks > kMaxHeads) return false;
  return slice.first + (blocks - 1) * slice.stride + slice.block_rows <= slice.tensor_rows;
}

Status check_projection(const Checkpoint& checkpoint, const ProjectionSpec& projection) {
  if (!has_good_rows(projection)) {
    return corrupt(fmt::format("{}: {}: {} rows that do not lie in it as the configuration says", checkpoint.path(),
                               projection.weight, projection.rows));
  }
  LANNER_RETURN_IF_ERROR(checkpoint.check_matrix(projection.weight, tensor_rows(projection), projection.cols));
  if (projection.bias.empty()) return {};
  return checkpoint.check_vector(projection.bias, tensor_rows(projection));
}

Status check_norm(const Checkpoint& checkpoint, const NormSpec& norm, std::int64_t size) {
  if (!norm.weight.empty()) LANNER_RETURN_IF_ERROR(checkpoint.check_vector(norm.weight, size));
  return norm.bias.empty() ? Status() : checkpoint.check_vector(norm.bias, size);
}

Status check_layer(const Checkpoint& checkpoint, const LayerSpec& layer, const DecoderSpec& spec) {
  for (const NormSpec* norm :
       {&layer.attention_norm, &layer.attention_post_norm, &layer.mlp_norm, &layer.mlp_post_norm}) {
    LANNER_RETURN_IF_ERROR(check_norm(checkpoint, *norm, spec.hidden));
  }
  for (const NormSpec* norm : {&layer.q_norm, &layer.k_norm}) {
    LANNER_RETURN_IF_ERROR(check_norm(checkpoint, *norm, spec.head_dim));
  }
  for (const ProjectionSpec* projection :
       {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
    if (projection == &layer.gate && layer.gate.rows == 0) continue;
    LANNER_RETURN_IF_ERROR(check_projection(checkpoint, *projection));
  }
  if (layer.window < 0 || layer.window > kMaxPosition) {
    return corrupt(fmt::format("{}: a window of {} tokens", checkpoint.path(), layer.window));
  }
  const auto ropes = static_cast<std::int32_t>(spec.ropes.size());
  if (layer.rope < -1 || layer.rope >= ropes) {
    return corrupt(fmt::format("{}: rope {} of {}", checkpoint.path(), layer.rope, ropes));
  }
  return {};
}

Status check_tensors(const Checkpoint& checkpoint, const DecoderSpec& spec) {
  LANNER_RETURN_IF_ERROR(checkpoint.check_matrix(spec.embedding, spec.vocab, spec.hidden));
  LANNER_RETURN_IF_ERROR(check_norm(checkpoint, spec.final_norm, spec.hidden));
  LANNER_RETURN_IF_ERROR(checkpoint.check_matrix(spec.head, spec.vocab, spec.hidden));
  if (!spec.head_bias.empty()) LANNER_RETURN_IF_ERROR(checkpoint.check_vector(spec.head_bias, spec.vocab));
  for (const LayerSpec& layer : spec.layers) LANNER_RETURN_IF_ERROR(check_layer(checkpoint, layer, spec));
  return {};
}

}  // namespace

JsonFields config_fields(const Checkpoint& checkpoint) {
  if (checkpoint.kind() == CheckpointKind::kGguf) return gguf_config_fields(checkpoint.config(), checkpoint.path());
  return {checkpoint.config(), checkpoint.path() + "/config.json"};
}

Result<Activation> read_activation(const JsonFields& config, std::string_view key, std::string_view fallback) {
  LANNER_ASSIGN_OR_RETURN(const std::string name, config.text_or(key, fallback));
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  return config.not_supported(key, fmt::format("'{}' is not implemented", printable(name)));
}

Result<DecoderSpec> read_decoder_spec(const Checkpoint& checkpoint) {
  const JsonFields config = config_fields(checkpoint);
  LANNER_ASSIGN_OR_RETURN(const arch::Architecture* architecture, find_architecture(config));
  LANNER_ASSIGN_OR_RETURN(DecoderSpec spec, architecture->read(checkpoint, config));
  spec.architecture = std::string(architecture->name);
  if (checkpoint.is_packed()) spec = packed_spec(spec);
  LANNER_RETURN_IF_ERROR(check_ranges(spec, config));
  LANNER_RETURN_IF_ERROR(check_tensors(checkpoint, spec));
  return spec;
}

}  // namespace lanner::model
