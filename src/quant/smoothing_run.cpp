#include "quant/smoothing_run.h"

#include <fmt/format.h>

#include <cstring>

#include "core/mapped_file.h"

namespace lanner::quant {
namespace {

// What a weight costs besides the tokens that it is multiplied with, as if it were so many of them.
constexpr double kTokensOfSmoothing = 60;

/// Scales of one layer, one group behind the other.
Status write_scales(const std::string& path, const GroupScales& scales) {
  std::string bytes;
  for (const std::vector<float>& group : scales) {
    bytes.append(reinterpret_cast<const char*>(group.data()), group.size() * sizeof(float));
  }
  return write_file_atomically(path, bytes);
}

Result<GroupScales> read_scales(const std::string& path, const std::vector<SmoothingGroup>& groups) {
  std::int64_t count = 0;
  for (const SmoothingGroup& group : groups) count += group.linears.front().cols;
  const std::int64_t size = count * static_cast<std::int64_t>(sizeof(float));
  LANNER_ASSIGN_OR_RETURN(const std::string bytes, read_file(path, size));
  if (static_cast<std::int64_t>(bytes.size()) != size) return corrupt(fmt::format("{}: ends too early", path));
  GroupScales scales;
  const char* place = bytes.data();
  for (const SmoothingGroup& group : groups) {
    scales.emplace_back(static_cast<std::size_t>(group.linears.front().cols));
    std::memcpy(scales.back().data(), place, scales.back().size() * sizeof(float));
    place += scales.back().size() * sizeof(float);
  }
  return scales;
}

}  // namespace

std::string SmoothingRun::layer_file(std::size_t layer) const { return fmt::format("layer-{:05}.scales", layer); }

double SmoothingRun::work_behind(std::size_t layer) const {
  const double work = layer_weights(layer) * kTokensOfSmoothing;
  if (!search_scale_) return work;
  return work + work_of_search(scale_search(), plan().spec, plan().spec.layers[layer]);
}

Status SmoothingRun::prepare(std::size_t first, CalibrationOptions& calibration) {
  statistics_ = make_layer_statistics(plan().spec.layers[first]);
  calibration.observe = [this](LinearInput which, std::span<const float> values) {
    statistics_.at(static_cast<std::size_t>(which)).add(values);
  };
  calibration.on_layer = [this](std::size_t layer, const ReadInput& read_input) {
    return finish_layer(layer, read_input);
  };
  return {};
}

std::int64_t SmoothingRun::smoothed_group() const {
  return plan().grouping.size > 0 ? plan().grouping.size : kWholeRow;
}

Status SmoothingRun::finish_layer(std::size_t layer, const ReadInput& read_input) {
  const std::vector<model::LayerSpec>& layers = plan().spec.layers;
  for (const ChannelStatistics& input : statistics_) {
    if (!input.finite()) return not_finite(checkpoint(), layer);
  }
  std::vector<ScaleFormula> formulas;
  if (search_scale_) {
    LANNER_ASSIGN_OR_RETURN(formulas, search(layer, read_input));
  }
  LANNER_ASSIGN_OR_RETURN(const GroupScales scales, scales_of_layer(checkpoint(), plan().spec, layers[layer],
                                                                    statistics_, smoothed_group(), formulas));
  progress().add(layer_weights(layer) * kTokensOfSmoothing);
  if (layer + 1 < layers.size()) statistics_ = make_layer_statistics(layers[layer + 1]);
  return write_scales(folder().scratch_file(layer_file(layer)), scales);
}

ScaleSearch SmoothingRun::scale_search() const {
  ScaleSearch search = make_scale_search(options().windows, options().threads);
  search.formulas = searched_formulas();
  search.group_size = smoothed_group();
  return search;
}

Result<std::vector<ScaleFormula>> SmoothingRun::search(std::size_t layer, const ReadInput& read_input) {
  ScaleSearch search = scale_search();
  search.round = [this](const DenseRows& matrix, std::span<const float> scales) { return rounded(matrix, scales); };
  search.read_input = read_input;
  search.on_formula = [&] { progress().add(work_of_formula(search, plan().spec.layers[layer])); };
  return search_formulas(checkpoint(), plan().spec, layer, statistics_, search);
}

Result<FolderContents> SmoothingRun::contents() {
  FolderContents contents;
  LANNER_ASSIGN_OR_RETURN(contents.factors, read_factors());
  contents.write_rounded = [this](const OutputTensor& tensor, const TensorFactors& factors,
                                  model::SafetensorsWriter& writer) -> Status {
    LANNER_ASSIGN_OR_RETURN(const DenseRows rows, DenseRows::open(checkpoint(), linear_of(tensor)));
    return write_rounded(rows, factors, writer);
  };
  return contents;
}

Result<SmoothingFactors> SmoothingRun::read_factors() const {
  SmoothingFactors factors;
  if (options().windows.empty()) return factors;
  for (std::size_t i = 0; i < plan().spec.layers.size(); ++i) {
    const std::vector<SmoothingGroup> groups = smoothing_groups(plan().spec, plan().spec.layers[i]);
    LANNER_ASSIGN_OR_RETURN(const GroupScales scales, read_scales(folder().scratch_file(layer_file(i)), groups));
    add_factors(groups, scales, factors);
  }
  return factors;
}

}  // namespace lanner::quant
