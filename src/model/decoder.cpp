#include "model/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "model/row_order.h"

namespace lanner::model {
namespace {

ops::Gate gate_of(Activation activation) {
  switch (activation) {
    case Activation::kSilu: return ops::Gate::kSilu;
    case Activation::kGelu: return ops::Gate::kGelu;
    case Activation::kGeluTanh: return ops::Gate::kGeluTanh;
  }
  return ops::Gate::kSilu;
}

/// Reads tensors, packs them and counts what has been done.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const DecoderSpec& spec, ops::Backend& backend, const LoadOptions& options)
      : checkpoint_(checkpoint), backend_(backend), options_(options) {
    for (const LayerSpec& layer : spec.layers) {
      for (const ProjectionSpec* p : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
        total_ += p->rows * p->cols;
      }
    }
    total_ += spec.vocab * spec.hidden * (spec.head == spec.embedding ? 1 : 2);
  }

  std::int64_t weight_bytes() const { return weight_bytes_; }

  Result<std::shared_ptr<const ops::PackedWeight>> matrix(const std::string& name, std::int64_t rows, std::int64_t cols,
                                                          std::int64_t pairwise_heads = 0) {
    LANNER_ASSIGN_OR_RETURN(ops::WeightSource source, checkpoint_.matrix(name, rows, cols));
    if (pairwise_heads > 0) source = undo_pairwise_rope(std::move(source), pairwise_heads);
    auto packed = backend_.pack(std::move(source), options_.arithmetic);
    if (!packed.ok()) return with_context(packed.status(), fmt::format("{}: {}", checkpoint_.path(), name));
    weight_bytes_ += (*packed)->bytes();
    done_ += rows * cols;
    if (options_.progress) options_.progress(static_cast<double>(done_) / static_cast<double>(total_));
    return packed;
  }

  Result<std::shared_ptr<const ops::DeviceVector>> vector(const std::string& name, std::int64_t size,
                                                          std::int64_t pairwise_heads = 0) {
    LANNER_ASSIGN_OR_RETURN(std::vector<float> values, checkpoint_.vector(name, size));
    if (pairwise_heads > 0) values = undo_pairwise_rope(values, pairwise_heads);
    weight_bytes_ += size * 4;
    return backend_.upload(values);
  }

  Result<ops::LinearPart> part(const ProjectionSpec& projection) {
    ops::LinearPart result;
    const std::int64_t pairwise_heads = projection.row_order == RowOrder::kPairwiseRope ? projection.heads : 0;
    LANNER_ASSIGN_OR_RETURN(result.weight, matrix(projection.weight, projection.rows, projection.cols, pairwise_heads));
    if (!projection.bias.empty()) {
      LANNER_ASSIGN_OR_RETURN(result.bias, vector(projection.bias, projection.rows, pairwise_heads));
    }
    return result;
  }

  /// A Linear over these projections, with the norm of that name in front (none when it is empty).
  Result<ops::Linear> linear(const std::string& norm, double eps,
                             std::initializer_list<const ProjectionSpec*> projections) {
    ops::Linear result;
    for (const ProjectionSpec* projection : projections) {
      LANNER_ASSIGN_OR_RETURN(ops::LinearPart loaded, part(*projection));
      result.parts.push_back(std::move(loaded));
    }
    if (!norm.empty()) {
      LANNER_ASSIGN_OR_RETURN(result.norm.gain, vector(norm, result.cols()));
      result.norm.eps = static_cast<float>(eps);
    }
    return result;
  }

 private:
  const Checkpoint& checkpoint_;
  ops::Backend& backend_;
  const LoadOptions& options_;
  std::int64_t total_ = 0;
  std::int64_t done_ = 0;
  std::int64_t weight_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<Decoder>> Decoder::load(const Checkpoint& checkpoint, const DecoderSpec& spec,
                                               ops::Backend& backend, const LoadOptions& options) {
  if (spec.head_dim % 16 != 0) {
    return unsupported(fmt::format("{}: head_dim {} is not a multiple of 16", checkpoint.path(), spec.head_dim));
  }
  Loader loader(checkpoint, spec, backend, options);
  std::unique_ptr<Decoder> decoder(new Decoder(spec, backend));
  LANNER_ASSIGN_OR_RETURN(decoder->embedding_, loader.matrix(spec.embedding, spec.vocab, spec.hidden));
  for (const LayerSpec& layer : spec.layers) {
    Layer loaded;
    LANNER_ASSIGN_OR_RETURN(loaded.qkv,
                            loader.linear(layer.attention_norm, spec.norm_eps, {&layer.q, &layer.k, &layer.v}));
    LANNER_ASSIGN_OR_RETURN(loaded.attention_out, loader.linear("", 0, {&layer.o}));
    LANNER_ASSIGN_OR_RETURN(loaded.gate_up, loader.linear(layer.mlp_norm, spec.norm_eps, {&layer.gate, &layer.up}));
    LANNER_ASSIGN_OR_RETURN(loaded.down, loader.linear("", 0, {&layer.down}));
    decoder->layers_.push_back(std::move(loaded));
  }
  std::shared_ptr<const ops::PackedWeight> head = decoder->embedding_;
  if (spec.head != spec.embedding) {
    LANNER_ASSIGN_OR_RETURN(head, loader.matrix(spec.head, spec.vocab, spec.hidden));
  }
  decoder->head_.parts.push_back({.weight = head, .bias = nullptr});
  LANNER_ASSIGN_OR_RETURN(decoder->head_.norm.gain, loader.vector(spec.final_norm, spec.hidden));
  decoder->head_.norm.eps = static_cast<float>(spec.norm_eps);
  const RopeFrequencies frequencies = rope_frequencies(spec.rope, spec.max_position, options.session_len);
  LANNER_ASSIGN_OR_RETURN(decoder->rope_.inverse_frequencies, backend.upload(frequencies.inverse));
  decoder->rope_.scale = frequencies.scale;
  decoder->weight_bytes_ = loader.weight_bytes();
  return decoder;
}

ops::KvLayout Decoder::kv_layout(DType dtype) const {
  return {.layers = static_cast<std::int64_t>(spec_.layers.size()),
          .kv_heads = spec_.kv_heads,
          .head_dim = spec_.head_dim,
          .dtype = dtype};
}

std::int64_t Decoder::max_cols() const {
  // The scratch of an operation holds an input row, or a row's keys and values.
  return std::max(
      {spec_.hidden, spec_.intermediate, spec_.heads * spec_.head_dim, 2 * spec_.kv_heads * spec_.head_dim});
}

std::int64_t Decoder::workspace_bytes(const StepLimits& limits) const {
  const std::int64_t row =
      spec_.hidden + 2 * spec_.heads * spec_.head_dim + spec_.intermediate + spec_.rope.rotary_dim + 3 * max_cols();
  return 4 * (limits.rows * row + limits.output_rows * (spec_.vocab + spec_.hidden));
}

Status Decoder::reserve(const StepLimits& limits) {
  const auto floats = [&](std::int64_t count, float*& place) -> Status {
    LANNER_ASSIGN_OR_RETURN(std::byte * bytes, backend_.allocate(count * 4, "activations"));
    place = reinterpret_cast<float*>(bytes);
    return {};
  };
  const std::int64_t heads_width = spec_.heads * spec_.head_dim;
  LANNER_RETURN_IF_ERROR(backend_.reserve(std::max(limits.rows, limits.output_rows), max_cols()));
  LANNER_RETURN_IF_ERROR(floats(limits.rows * spec_.hidden, x_));
  LANNER_RETURN_IF_ERROR(floats(limits.rows * heads_width, q_));
  LANNER_RETURN_IF_ERROR(floats(limits.rows * heads_width, attended_));
  LANNER_RETURN_IF_ERROR(floats(limits.rows * spec_.intermediate, mlp_));
  LANNER_RETURN_IF_ERROR(floats(limits.rows * spec_.rope.rotary_dim, angles_));
  LANNER_RETURN_IF_ERROR(floats(limits.output_rows * spec_.vocab, logits_));
  LANNER_RETURN_IF_ERROR(floats(limits.output_rows * spec_.hidden, hidden_));
  limits_ = limits;
  return {};
}

StepOutput Decoder::forward(const ops::Batch& batch, const ops::KvCacheView& cache, const StepWants& wants) {
  LANNER_CHECK(batch.rows <= limits_.rows);
  const float scale = 1.0F / std::sqrt(static_cast<float>(spec_.head_dim));
  backend_.embed(*embedding_, batch, x_);
  backend_.rope_angles(rope_, batch, angles_);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const auto index = static_cast<std::int64_t>(i);
    backend_.norm_qkv({.x = x_,
                       .linear = &layer.qkv,
                       .rope_angles = angles_,
                       .rotary_dim = spec_.rope.rotary_dim,
                       .heads = spec_.heads,
                       .layer = index,
                       .q = q_},
                      batch, cache);
    backend_.attention({.q = q_, .heads = spec_.heads, .layer = index, .scale = scale, .out = attended_}, batch, cache);
    backend_.linear_add(layer.attention_out, attended_, batch.rows, x_);
    backend_.norm_gated_up(layer.gate_up, gate_of(spec_.activation), x_, batch.rows, mlp_);
    backend_.linear_add(layer.down, mlp_, batch.rows, x_);
  }
  LANNER_CHECK(static_cast<std::int64_t>(std::max(wants.logits.size(), wants.hidden.size())) <= limits_.output_rows);
  if (!wants.logits.empty()) backend_.norm_head(head_, x_, wants.logits, logits_);
  if (!wants.hidden.empty()) backend_.norm_rows(head_.norm, x_, spec_.hidden, wants.hidden, hidden_);
  return {.logits = logits_, .hidden = hidden_};
}

}  // namespace lanner::model
