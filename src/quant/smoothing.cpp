#include "quant/smoothing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "model/row_order.h"
#include "model/tensor_view.h"
#include "quant/dense_rows.h"

namespace lanner::quant {
namespace {

constexpr float kLeast = 1e-4F;

LinearTensor tensor_of(const model::ProjectionSpec& projection) {
  return {.name = projection.weight, .rows = model::tensor_rows(projection), .cols = projection.cols};
}

/// Those that are there, each tensor once.
std::vector<LinearTensor> tensors_of(std::initializer_list<const model::ProjectionSpec*> projections) {
  std::vector<LinearTensor> tensors;
  for (const model::ProjectionSpec* projection : projections) {
    const bool known =
        std::ranges::any_of(tensors, [&](const LinearTensor& tensor) { return tensor.name == projection->weight; });
    if (projection->rows > 0 && !known) tensors.push_back(tensor_of(*projection));
  }
  return tensors;
}

/// Whether the rows of v may be divided by what the columns of o are multiplied with.
bool v_makes_o(const model::DecoderSpec& spec, const model::LayerSpec& layer) {
  if (layer.v.rows != layer.o.cols) return false;  // heads of v are shared
  return !layer.v.slice || spec.architecture == "QWenLMHeadModel";
}

void divide(std::vector<float>& place, std::span<const float> scales) {
  if (place.empty()) {
    place.assign(scales.begin(), scales.end());
  } else {
    for (std::size_t i = 0; i < place.size(); ++i) place[i] *= scales[i];
  }
}

/// Divides the rows of a projection, and of its bias, by the scales.
void divide_front(const model::ProjectionSpec& front, std::span<const float> scales, SmoothingFactors& factors) {
  std::vector<float> rows(static_cast<std::size_t>(model::tensor_rows(front)), 1.0F);
  const std::vector<std::int64_t> places = model::rows_in_tensor(front);
  for (std::size_t i = 0; i < places.size(); ++i) rows[static_cast<std::size_t>(places[i])] = scales[i];
  divide(factors[front.weight].divide_rows, rows);
  if (!front.bias.empty()) divide(factors[front.bias].divide_rows, rows);
}

}  // namespace

Status read_smoothed(const DenseRows& matrix, const TensorFactors& factors, std::int64_t row, std::span<float> values) {
  LANNER_RETURN_IF_ERROR(matrix.read(row, values));
  if (!factors.multiply_columns.empty()) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] *= factors.multiply_columns[i];
  }
  if (!factors.divide_rows.empty()) {
    const float divisor = factors.divide_rows[static_cast<std::size_t>(row)];
    for (float& value : values) value /= divisor;
  }
  return {};
}

double layer_weights(const model::LayerSpec& layer) {
  double weights = 0;
  for (const LinearTensor& linear : linear_tensors(layer)) {
    weights += static_cast<double>(linear.rows) * static_cast<double>(linear.cols);
  }
  return weights;
}

std::vector<LinearTensor> linear_tensors(const model::LayerSpec& layer) {
  return tensors_of({&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down});
}

std::vector<LinearTensor> linear_tensors(const model::LayerSpec& layer, LinearInput input) {
  switch (input) {
    case LinearInput::kAttention: return tensors_of({&layer.q, &layer.k, &layer.v});
    case LinearInput::kAttentionOut: return tensors_of({&layer.o});
    case LinearInput::kMlp: return tensors_of({&layer.gate, &layer.up});
    case LinearInput::kDown: return tensors_of({&layer.down});
  }
  return {};
}

std::vector<SmoothingGroup> smoothing_groups(const model::DecoderSpec& spec, const model::LayerSpec& layer) {
  std::vector<SmoothingGroup> groups;
  const auto behind_norm = [&](LinearInput input, const model::NormSpec& norm, std::vector<LinearTensor> linears) {
    if (norm.weight.empty()) return;
    groups.push_back({.input = input, .linears = std::move(linears), .norm = norm});
  };
  if (layer.attention_norm.weight == layer.mlp_norm.weight) {
    behind_norm(LinearInput::kAttention, layer.attention_norm,
                tensors_of({&layer.q, &layer.k, &layer.v, &layer.gate, &layer.up}));
  } else {
    behind_norm(LinearInput::kAttention, layer.attention_norm, linear_tensors(layer, LinearInput::kAttention));
    behind_norm(LinearInput::kMlp, layer.mlp_norm, linear_tensors(layer, LinearInput::kMlp));
  }
  if (v_makes_o(spec, layer)) {
    groups.push_back({.input = LinearInput::kAttentionOut,
                      .linears = linear_tensors(layer, LinearInput::kAttentionOut),
                      .front = &layer.v});
  }
  if (layer.gate.rows > 0 && !layer.up.slice) {
    groups.push_back(
        {.input = LinearInput::kDown, .linears = linear_tensors(layer, LinearInput::kDown), .front = &layer.up});
  }
  return groups;
}

Result<std::vector<float>> relative_weights(const model::Checkpoint& checkpoint,
                                            const std::vector<LinearTensor>& linears, std::int64_t group_size) {
  const auto cols = static_cast<std::size_t>(linears.front().cols);
  const auto group = static_cast<std::size_t>(group_size);
  std::vector<double> sums(cols);
  std::int64_t rows = 0;
  std::vector<float> row(cols);
  for (const LinearTensor& linear : linears) {
    LANNER_ASSIGN_OR_RETURN(const DenseRows matrix, DenseRows::open(checkpoint, linear));
    for (std::int64_t r = 0; r < linear.rows; ++r) {
      LANNER_RETURN_IF_ERROR(matrix.read(r, row));
      for (float& value : row) value = std::fabs(value);
      for (std::size_t begin = 0; begin < cols; begin += group) {
        const std::size_t end = std::min(begin + group, cols);
        float most = 0;
        for (std::size_t i = begin; i < end; ++i) most = std::max(most, row[i]);
        if (most == 0) continue;
        for (std::size_t i = begin; i < end; ++i) sums[i] += static_cast<double>(row[i] / most);
      }
    }
    rows += linear.rows;
  }
  std::vector<float> weights;
  weights.reserve(cols);
  for (const double sum : sums) weights.push_back(static_cast<float>(sum / static_cast<double>(rows)));
  return weights;
}

Result<std::vector<float>> norm_gains(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                      const SmoothingGroup& group) {
  std::vector<float> gains;
  if (group.norm.weight.empty()) return gains;
  LANNER_ASSIGN_OR_RETURN(gains, checkpoint.vector(group.norm.weight, group.linears.front().cols));
  for (float& gain : gains) gain += static_cast<float>(spec.norm_gain_offset);
  return gains;
}

std::vector<float> smoothing_scales(const ChannelStatistics& inputs, std::span<const float> weights,
                                    std::span<const float> gains, const ScaleFormula& formula) {
  const auto values = formula.greatest ? inputs.absolute_greatest() : inputs.absolute_mean();
  return smoothing_scales(values, weights, gains, formula);
}

std::vector<float> smoothing_scales(std::span<const float> inputs, std::span<const float> weights,
                                    std::span<const float> gains, const ScaleFormula& formula) {
  std::vector<float> scales(inputs.size());
  const auto counts = [&](std::size_t i) { return gains.empty() || gains[i] != 0; };
  const auto up = static_cast<float>(formula.of_inputs);
  const auto down = static_cast<float>(formula.of_weights);
  float most = 0;
  float least = std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < scales.size(); ++i) {
    scales[i] = std::max(std::pow(inputs[i], up) / std::max(std::pow(weights[i], down), kLeast), kLeast);
    if (!counts(i)) continue;
    most = std::max(most, scales[i]);
    least = std::min(least, scales[i]);
  }
  const float middle = std::sqrt(most * least);
  for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = counts(i) ? scales[i] / middle : 1.0F;
  return scales;
}

Result<GroupScales> scales_of_layer(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                    const model::LayerSpec& layer, const LayerStatistics& statistics,
                                    std::int64_t group_size, std::span<const ScaleFormula> formulas) {
  GroupScales scales;
  for (const SmoothingGroup& group : smoothing_groups(spec, layer)) {
    LANNER_ASSIGN_OR_RETURN(const auto gains, norm_gains(checkpoint, spec, group));
    LANNER_ASSIGN_OR_RETURN(const auto weights, relative_weights(checkpoint, group.linears, group_size));
    const ChannelStatistics& input = statistics.at(static_cast<std::size_t>(group.input));
    const ScaleFormula formula = formulas.empty() ? ScaleFormula() : formulas[scales.size()];
    scales.push_back(smoothing_scales(input, weights, gains, formula));
  }
  return scales;
}

void add_factors(const std::vector<SmoothingGroup>& groups, const GroupScales& scales, SmoothingFactors& factors) {
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const SmoothingGroup& group = groups[i];
    for (const LinearTensor& linear : group.linears) factors[linear.name].multiply_columns = scales[i];
    if (group.front != nullptr) {
      divide_front(*group.front, scales[i], factors);
      continue;
    }
    divide(factors[group.norm.weight].divide_rows, scales[i]);
    if (!group.norm.bias.empty()) divide(factors[group.norm.bias].divide_rows, scales[i]);
  }
}

}  // namespace lanner::quant
