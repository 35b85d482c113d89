#include "model/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "model/weight_loader.h"

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

/// The factor of the attention scores.
float attention_scale(const DecoderSpec& spec) {
  if (spec.attention_scale != 0.0) return static_cast<float>(spec.attention_scale);
  return 1.0F / std::sqrt(static_cast<float>(spec.head_dim));
}

}  // namespace

Result<std::unique_ptr<Decoder>> Decoder::load(const Checkpoint& checkpoint, const DecoderSpec& spec,
                                               ops::Backend& backend, const LoadOptions& options) {
  if (spec.head_dim % 16 != 0) {
    return unsupported(fmt::format("{}: head_dim {} is not a multiple of 16", checkpoint.path(), spec.head_dim));
  }
  std::unique_ptr<Decoder> decoder(new Decoder(spec, backend));
  WeightLoader loader(checkpoint, decoder->spec_, backend, options.arithmetic, options.progress);
  LANNER_ASSIGN_OR_RETURN(decoder->embedding_, loader.embedding());
  for (const LayerSpec& layer : spec.layers) {
    LANNER_ASSIGN_OR_RETURN(Layer loaded, load_layer(loader, layer, spec.head_dim));
    decoder->layers_.push_back(std::move(loaded));
  }
  LANNER_ASSIGN_OR_RETURN(decoder->head_, loader.head(decoder->embedding_));
  for (const RopeSpec& rope : spec.ropes) {
    const RopeFrequencies frequencies = rope_frequencies(rope, spec.max_position, options.session_len);
    StepRope loaded{.rope = {.inverse_frequencies = nullptr, .scale = frequencies.scale},
                    .rotary_dim = rope.rotary_dim};
    LANNER_ASSIGN_OR_RETURN(loaded.rope.inverse_frequencies, backend.upload(frequencies.inverse));
    decoder->ropes_.push_back(std::move(loaded));
  }
  if (!spec.alibi_slopes.empty()) {
    LANNER_ASSIGN_OR_RETURN(decoder->alibi_slopes_, loader.upload(spec.alibi_slopes));
  }
  decoder->weight_bytes_ = loader.weight_bytes();
  return decoder;
}

Result<Decoder::Layer> Decoder::load_layer(WeightLoader& loader, const LayerSpec& layer, std::int64_t head_dim) {
  Layer loaded;
  LANNER_ASSIGN_OR_RETURN(loaded.qkv, loader.linear(layer.attention_norm, {&layer.q, &layer.k, &layer.v}));
  LANNER_ASSIGN_OR_RETURN(loaded.q_norm, loader.norm(layer.q_norm, head_dim));
  LANNER_ASSIGN_OR_RETURN(loaded.k_norm, loader.norm(layer.k_norm, head_dim));
  LANNER_ASSIGN_OR_RETURN(loaded.attention_out, loader.residual_linear(layer.o, layer.attention_post_norm));
  auto gate_up = layer.gate.rows > 0 ? loader.linear(layer.mlp_norm, {&layer.gate, &layer.up})
                                     : loader.linear(layer.mlp_norm, {&layer.up});
  if (!gate_up.ok()) return gate_up.status();
  loaded.gate_up = std::move(*gate_up);
  LANNER_ASSIGN_OR_RETURN(loaded.down, loader.residual_linear(layer.down, layer.mlp_post_norm));
  loaded.window = layer.window;
  loaded.rope = layer.rope;
  return loaded;
}

void Decoder::for_each_linear(const std::function<void(std::string_view, const ops::Linear&)>& visit) const {
  for (const Layer& layer : layers_) {
    visit("qkv", layer.qkv);
    visit("attention out", layer.attention_out);
    visit("gate up", layer.gate_up);
    visit("down", layer.down);
  }
  visit("head", head_);
}

ops::KvLayout Decoder::kv_layout(DType dtype, ops::KvCodes codes) const {
  return {.layers = static_cast<std::int64_t>(spec_.layers.size()),
          .kv_heads = spec_.kv_heads,
          .head_dim = spec_.head_dim,
          .dtype = dtype,
          .codes = codes};
}

std::int64_t Decoder::max_cols() const {
  // The scratch of an operation holds an input row, or a row's keys and values.
  return std::max(
      {spec_.hidden, spec_.intermediate, spec_.heads * spec_.head_dim, 2 * spec_.kv_heads * spec_.head_dim});
}

std::int64_t Decoder::angle_cols() const {
  std::int64_t cols = 0;
  for (const StepRope& rope : ropes_) cols += rope.rotary_dim;
  return cols;
}

std::int64_t Decoder::workspace_bytes(const StepLimits& limits) const {
  const std::int64_t row = spec_.hidden + 2 * spec_.heads * spec_.head_dim + spec_.intermediate + angle_cols();
  return 4 * (limits.rows * row + limits.output_rows * (spec_.vocab + spec_.hidden)) +
         backend_.reserve_bytes(room_for(limits));
}

ops::StepRoom Decoder::room_for(const StepLimits& limits) const {
  return {.rows = std::max(limits.rows, limits.output_rows),
          .max_cols = max_cols(),
          .slices = limits.sequences,
          .blocks = limits.blocks,
          .sampled = limits.sequences,
          .vocab = spec_.vocab,
          .history = limits.history};
}

Status Decoder::reserve(const StepLimits& limits) {
  const auto floats = [&](std::int64_t count, float*& place) -> Status {
    LANNER_ASSIGN_OR_RETURN(std::byte * bytes, backend_.allocate(count * 4, "activations"));
    place = reinterpret_cast<float*>(bytes);
    return {};
  };
  const std::int64_t heads_width = spec_.heads * spec_.head_dim;
  LANNER_RETURN_IF_ERROR(backend_.reserve(room_for(limits)));
  LANNER_RETURN_IF_ERROR(floats(limits.rows * spec_.hidden, x_));
  LANNER_RETURN_IF_ERROR(floats(limits.rows * heads_width, q_));
  LANNER_RETURN_IF_ERROR(floats(limits.rows * heads_width, attended_));
  LANNER_RETURN_IF_ERROR(floats(limits.rows * spec_.intermediate, mlp_));
  for (StepRope& rope : ropes_) LANNER_RETURN_IF_ERROR(floats(limits.rows * rope.rotary_dim, rope.angles));
  LANNER_RETURN_IF_ERROR(floats(limits.output_rows * spec_.vocab, logits_));
  LANNER_RETURN_IF_ERROR(floats(limits.output_rows * spec_.hidden, hidden_));
  limits_ = limits;
  return {};
}

StepOutput Decoder::forward(const ops::Batch& batch, const ops::KvCacheView& cache, const StepWants& wants) {
  LANNER_CHECK(batch.rows <= limits_.rows);
  LANNER_CHECK(static_cast<std::int64_t>(std::max(wants.logits.size(), wants.hidden.size())) <= limits_.output_rows);
  const bool repeated = backend_.begin_step({.model = this,
                                             .batch = batch,
                                             .cache = cache,
                                             .logits = wants.logits,
                                             .hidden = wants.hidden,
                                             .most_rows = std::min(limits_.rows, limits_.output_rows)});
  if (!repeated) run_step(batch, cache, wants);
  while (!backend_.end_step()) run_step(batch, cache, wants);
  return {.logits = logits_, .hidden = hidden_};
}

void Decoder::run_step(const ops::Batch& batch, const ops::KvCacheView& cache, const StepWants& wants) {
  backend_.embed(*embedding_, batch, static_cast<float>(spec_.embedding_scale), x_);
  for (const StepRope& rope : ropes_) backend_.rope_angles(rope.rope, batch, rope.angles);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const auto index = static_cast<std::int64_t>(i);
    const StepRope& rope = layer.rope < 0 ? no_rope_ : ropes_[static_cast<std::size_t>(layer.rope)];
    backend_.norm_qkv({.x = x_,
                       .linear = &layer.qkv,
                       .rope_angles = rope.angles,
                       .rotary_dim = rope.rotary_dim,
                       .heads = spec_.heads,
                       .layer = index,
                       .q_norm = layer.q_norm,
                       .k_norm = layer.k_norm,
                       .q = q_},
                      batch, cache);
    backend_.attention({.q = q_,
                        .heads = spec_.heads,
                        .layer = index,
                        .scale = attention_scale(spec_),
                        .soft_cap = static_cast<float>(spec_.attention_soft_cap),
                        .window = layer.window,
                        .alibi_slopes = alibi_slopes_,
                        .reader = &layer.attention_out,
                        .out = attended_},
                       batch, cache);
    get_on();
    // Where attention and MLP read the same x, it must not change before both have.
    if (!spec_.parallel_layers) backend_.handed_linear_add(layer.attention_out, attended_, batch.rows, x_);
    backend_.norm_gated_up(layer.gate_up, gate_of(spec_.activation), x_, batch.rows, mlp_, &layer.down);
    if (spec_.parallel_layers) backend_.handed_linear_add(layer.attention_out, attended_, batch.rows, x_);
    backend_.handed_linear_add(layer.down, mlp_, batch.rows, x_);
    get_on();
  }
  if (!wants.logits.empty()) backend_.norm_head(head_, x_, wants.logits, logits_);
  if (!wants.hidden.empty()) backend_.norm_rows(head_.norm, x_, spec_.hidden, wants.hidden, hidden_);
}

}  // namespace lanner::model
