#include "quant/awq.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/mapped_file.h"
#include "quant/awq_matrix.h"
#include "quant/calibration.h"
#include "quant/channel_statistics.h"
#include "quant/quantize_run.h"
#include "quant/scale_search.h"
#include "quant/smoothing.h"

namespace lanner::quant {
namespace {

// What a weight costs besides the tokens that it is multiplied with, as if it were so many of them.
constexpr double kTokensOfSmoothing = 60;
// Of a search for scales: samples that are tried, and what loading a layer with other weights costs.
constexpr std::size_t kSearchedSamples = 4;
constexpr double kTokensOfLoading = 200;

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

/// One run of quantize_awq().
class AwqRun final : public QuantizeRun {
 public:
  AwqRun(const model::Checkpoint& checkpoint, const Plan& plan, const AwqOptions& options, WorkFolder& folder)
      : QuantizeRun(checkpoint, plan, options, folder), search_scale_(options.search_scale) {}

 private:
  std::string layer_file(std::size_t layer) const override { return fmt::format("layer-{:05}.scales", layer); }
  std::int64_t layer_file_bytes(const std::vector<OutputShard>& /*shards*/) const override { return 0; }  // a few KB
  int passes(std::size_t /*layer*/) const override { return 1; }
  double extra_work_of_token(std::size_t /*layer*/) const override { return 0; }
  double work_behind(std::size_t layer) const override {
    double work = layer_weights(layer) * kTokensOfSmoothing;
    if (!search_scale_) return work;
    const std::size_t groups = smoothing_groups(plan().spec, plan().spec.layers[layer]).size();
    return work + work_of_ratio(layer) * kSearchedRatios * static_cast<double>(groups);
  }

  Status prepare(std::size_t first, CalibrationOptions& calibration) override {
    statistics_ = make_layer_statistics(plan().spec.layers[first]);
    calibration.observe = [this](LinearInput which, std::span<const float> values) {
      statistics_.at(static_cast<std::size_t>(which)).add(values);
    };
    calibration.on_layer = [this](std::size_t layer, const ReadInput& read_input) {
      return finish_layer(layer, read_input);
    };
    return {};
  }

  Status finish_layer(std::size_t layer, const ReadInput& read_input) {
    const std::vector<model::LayerSpec>& layers = plan().spec.layers;
    for (const ChannelStatistics& input : statistics_) {
      if (!input.finite()) return not_finite(checkpoint(), layer);
    }
    std::vector<double> ratios;
    if (search_scale_) {
      LANNER_ASSIGN_OR_RETURN(ratios, search(layer, read_input));
    }
    LANNER_ASSIGN_OR_RETURN(const GroupScales scales, scales_of_layer(checkpoint(), plan().spec, layers[layer],
                                                                      statistics_, plan().grouping.size, ratios));
    progress().add(layer_weights(layer) * kTokensOfSmoothing);
    if (layer + 1 < layers.size()) statistics_ = make_layer_statistics(layers[layer + 1]);
    return write_scales(folder().scratch_file(layer_file(layer)), scales);
  }

  ScaleSearch scale_search() const {
    return {.grouping = plan().grouping,
            .rows = tokens(),
            .samples = std::min(options().windows.size(), kSearchedSamples),
            .threads = options().threads};
  }

  /// What trying one ratio costs: about half a layer for each sample.
  double work_of_ratio(std::size_t layer) const {
    const ScaleSearch search = scale_search();
    return layer_weights(layer) *
           (0.5 * static_cast<double>(search.samples) * static_cast<double>(search.rows) + kTokensOfLoading);
  }

  Result<std::vector<double>> search(std::size_t layer, const ReadInput& read_input) {
    ScaleSearch search = scale_search();
    search.read_input = read_input;
    search.on_ratio = [&] { progress().add(work_of_ratio(layer)); };
    return search_ratios(checkpoint(), plan().spec, layer, statistics_, search);
  }

  Result<FolderContents> contents() override {
    FolderContents contents;
    LANNER_ASSIGN_OR_RETURN(contents.factors, read_factors());
    contents.write_rounded = [this](const OutputTensor& tensor, const TensorFactors& factors,
                                    model::SafetensorsWriter& writer) -> Status {
      LANNER_ASSIGN_OR_RETURN(const DenseRows rows, DenseRows::open(checkpoint(), linear_of(tensor)));
      LANNER_ASSIGN_OR_RETURN(const PackedMatrix matrix, round_awq(rows, factors, plan().grouping, pool()));
      return append_packed(matrix, writer);
    };
    return contents;
  }

  Result<SmoothingFactors> read_factors() const {
    SmoothingFactors factors;
    if (options().windows.empty()) return factors;
    for (std::size_t i = 0; i < plan().spec.layers.size(); ++i) {
      const std::vector<SmoothingGroup> groups = smoothing_groups(plan().spec, plan().spec.layers[i]);
      LANNER_ASSIGN_OR_RETURN(const GroupScales scales, read_scales(folder().scratch_file(layer_file(i)), groups));
      add_factors(groups, scales, factors);
    }
    return factors;
  }

  const bool search_scale_;
  LayerStatistics statistics_;  // of the layer that samples go through
};

}  // namespace

Result<Outcome> quantize_awq(const model::Checkpoint& checkpoint, const Plan& plan, const AwqOptions& options) {
  model::Json settings = settings_of(checkpoint, plan, options);
  settings["search of scales"] = options.search_scale;
  LANNER_ASSIGN_OR_RETURN(WorkFolder folder, WorkFolder::open(options.destination, settings, options.resume));
  return AwqRun(checkpoint, plan, options, folder).run();
}

}  // namespace lanner::quant
