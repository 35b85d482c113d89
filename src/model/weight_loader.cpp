#include "model/weight_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "model/dense_weight.h"
#include "model/row_order.h"

namespace lanner::model {
namespace {

bool same_input_order(std::span<const ops::WeightSource> sources) {
  return std::ranges::all_of(
      sources, [&](const ops::WeightSource& source) { return source.input_order == sources.front().input_order; });
}

/// Whether the rows are those of the whole tensor, in order.
bool is_whole(std::span<const std::int64_t> rows, std::int64_t tensor_rows) {
  if (static_cast<std::int64_t>(rows.size()) != tensor_rows) return false;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] != static_cast<std::int64_t>(i)) return false;
  }
  return true;
}

}  // namespace

WeightLoader::WeightLoader(const Checkpoint& checkpoint, const DecoderSpec& spec, ops::Backend& backend,
                           ops::Arithmetic arithmetic, const std::function<void(double)>& progress)
    : checkpoint_(checkpoint), spec_(spec), backend_(backend), arithmetic_(arithmetic), progress_(progress) {
  for (const LayerSpec& layer : spec.layers) {
    for (const ProjectionSpec* p : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      total_ += p->rows * p->cols;
    }
  }
  const bool shared = spec.head == spec.embedding && !spec.normalize_head;
  total_ += spec.vocab * spec.hidden * (shared ? 1 : 2);
}

Result<ops::WeightSource> WeightLoader::source(const ProjectionSpec& projection) {
  const std::vector<std::int64_t> rows = rows_in_tensor(projection);
  if (projection.slice) {
    if (sliced_name_ != projection.weight) {
      LANNER_ASSIGN_OR_RETURN(sliced_, checkpoint_.matrix(projection.weight, tensor_rows(projection), projection.cols));
      sliced_name_ = projection.weight;
    }
    return gather_rows(sliced_, rows);
  }
  LANNER_ASSIGN_OR_RETURN(ops::WeightSource whole,
                          checkpoint_.matrix(projection.weight, projection.rows, projection.cols));
  return is_whole(rows, projection.rows) ? std::move(whole) : gather_rows(whole, rows);
}

Status WeightLoader::undo_input_order(const std::string& name, ops::WeightSource& source) const {
  if (source.input_order.empty()) return {};
  if (source.packed != nullptr) {
    return corrupt(fmt::format("{}: {}: input_order: does not fit the matrices beside it", checkpoint_.path(), name));
  }
  source = widened(source);
  return {};
}

Result<std::shared_ptr<const ops::PackedWeight>> WeightLoader::pack(const std::string& name, ops::WeightSource source) {
  const std::int64_t elements = source.rows * source.cols;
  auto packed = backend_.pack(std::move(source), arithmetic_);
  if (!packed.ok()) return with_context(packed.status(), fmt::format("{}: {}", checkpoint_.path(), name));
  weight_bytes_ += (*packed)->bytes();
  done_ += elements;
  if (progress_) progress_(static_cast<double>(done_) / static_cast<double>(total_));
  return packed;
}

Result<std::shared_ptr<const ops::DeviceVector>> WeightLoader::upload(const std::vector<float>& values) {
  weight_bytes_ += static_cast<std::int64_t>(values.size() * sizeof(float));
  return backend_.upload(values);
}

Result<std::shared_ptr<const ops::DeviceVector>> WeightLoader::upload(std::span<const double> values) {
  std::vector<float> narrow;
  narrow.reserve(values.size());
  for (const double value : values) narrow.push_back(static_cast<float>(value));
  return upload(narrow);
}

Result<std::shared_ptr<const ops::DeviceVector>> WeightLoader::bias(const ProjectionSpec& projection) {
  LANNER_ASSIGN_OR_RETURN(const auto values, checkpoint_.vector(projection.bias, tensor_rows(projection)));
  return upload(gather_rows(values, rows_in_tensor(projection)));
}

Result<ops::Norm> WeightLoader::norm(const NormSpec& norm, std::int64_t size) {
  ops::Norm result;
  if (norm.weight.empty()) return result;
  result.kind = spec_.norm_type == NormType::kLayer ? ops::NormKind::kLayer : ops::NormKind::kRms;
  result.eps = static_cast<float>(spec_.norm_eps);
  LANNER_ASSIGN_OR_RETURN(std::vector<float> gain, checkpoint_.vector(norm.weight, size));
  for (float& value : gain) value += static_cast<float>(spec_.norm_gain_offset);
  LANNER_ASSIGN_OR_RETURN(result.gain, upload(gain));
  if (!norm.bias.empty()) {
    LANNER_ASSIGN_OR_RETURN(const std::vector<float> values, checkpoint_.vector(norm.bias, size));
    LANNER_ASSIGN_OR_RETURN(result.bias, upload(values));
  }
  return result;
}

Result<ops::Linear> WeightLoader::linear(const NormSpec& norm_spec,
                                         std::initializer_list<const ProjectionSpec*> projections) {
  std::vector<ops::WeightSource> sources;
  for (const ProjectionSpec* projection : projections) {
    LANNER_ASSIGN_OR_RETURN(ops::WeightSource one, source(*projection));
    sources.push_back(std::move(one));
  }
  sliced_name_.clear();
  sliced_ = {};
  // One Linear hands its columns on in one order.
  if (!same_input_order(sources)) {
    for (std::size_t i = 0; i < sources.size(); ++i) {
      LANNER_RETURN_IF_ERROR(undo_input_order(projections.begin()[i]->weight, sources[i]));
    }
  }
  ops::Linear result;
  result.input_order = std::move(sources.front().input_order);
  for (std::size_t i = sources.size(); i-- > 1;) sources[i - 1].rows_behind = sources[i].rows + sources[i].rows_behind;
  std::size_t index = 0;
  for (const ProjectionSpec* projection : projections) {
    ops::WeightSource& one = sources[index++];
    one.input_order.clear();
    quantized_layers_ = quantized_layers_ || ops::is_quantized(one.format);
    ops::LinearPart part;
    LANNER_ASSIGN_OR_RETURN(part.weight, pack(projection->weight, std::move(one)));
    if (!projection->bias.empty()) {
      LANNER_ASSIGN_OR_RETURN(part.bias, bias(*projection));
    }
    result.parts.push_back(std::move(part));
  }
  LANNER_ASSIGN_OR_RETURN(result.norm, norm(norm_spec, result.cols()));
  LANNER_RETURN_IF_ERROR(backend_.prepare_linear(result));
  return result;
}

Result<ops::Linear> WeightLoader::residual_linear(const ProjectionSpec& projection, const NormSpec& post_norm) {
  LANNER_ASSIGN_OR_RETURN(ops::Linear result, linear({}, {&projection}));
  result.epilogue.scale = static_cast<float>(spec_.residual_scale);
  LANNER_ASSIGN_OR_RETURN(result.epilogue.post_norm, norm(post_norm, projection.rows));
  return result;
}

Result<std::shared_ptr<const ops::PackedWeight>> WeightLoader::embedding() {
  LANNER_ASSIGN_OR_RETURN(ops::WeightSource table, checkpoint_.matrix(spec_.embedding, spec_.vocab, spec_.hidden));
  LANNER_RETURN_IF_ERROR(undo_input_order(spec_.embedding, table));  // its columns are not an input but the result
  return pack(spec_.embedding, std::move(table));
}

Result<ops::Linear> WeightLoader::head(const std::shared_ptr<const ops::PackedWeight>& embedding) {
  ops::Linear result;
  ops::LinearPart part{.weight = embedding, .bias = nullptr};
  if (spec_.head != spec_.embedding || spec_.normalize_head) {
    LANNER_ASSIGN_OR_RETURN(ops::WeightSource source, checkpoint_.matrix(spec_.head, spec_.vocab, spec_.hidden));
    result.input_order = std::move(source.input_order);
    source.input_order.clear();
    if (spec_.normalize_head) source = with_unit_rows(std::move(source));
    source.may_be_int8 = quantized_layers_;
    LANNER_ASSIGN_OR_RETURN(part.weight, pack(spec_.head, std::move(source)));
  }
  if (!spec_.head_bias.empty()) {
    LANNER_ASSIGN_OR_RETURN(const auto values, checkpoint_.vector(spec_.head_bias, spec_.vocab));
    LANNER_ASSIGN_OR_RETURN(part.bias, upload(values));
  }
  result.parts.push_back(std::move(part));
  LANNER_ASSIGN_OR_RETURN(result.norm, norm(spec_.final_norm, spec_.hidden));
  result.epilogue.scale = static_cast<float>(spec_.logit_scale);
  result.epilogue.soft_cap = static_cast<float>(spec_.logit_soft_cap);
  LANNER_RETURN_IF_ERROR(backend_.prepare_linear(result));
  return result;
}

}  // namespace lanner::model
