#include "quant/scale_search.h"

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "model/forwarding_checkpoint.h"
#include "model/tensor_view.h"
#include "quant/dense_rows.h"
#include "quant/layer_runner.h"
#include "quant/smoothing.h"

namespace lanner::quant {
namespace {

/// The checkpoint with other values in some of its matrices.
class ReplacingCheckpoint final : public model::ForwardingCheckpoint {
 public:
  using ForwardingCheckpoint::ForwardingCheckpoint;

  void replace(const std::string& name, std::vector<float> values) {
    values_[name] = std::make_shared<const std::vector<float>>(std::move(values));
  }
  Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    const auto found = values_.find(name);
    if (found == values_.end()) return ForwardingCheckpoint::matrix(name, rows, cols);
    return model::dense_matrix(ops::WeightFormat::kF32, reinterpret_cast<const std::byte*>(found->second->data()), rows,
                               cols, found->second);
  }

 private:
  std::map<std::string, std::shared_ptr<const std::vector<float>>, std::less<>> values_;
};

double squared_error(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto difference = static_cast<double>(a[i] - b[i]);
    sum += difference * difference;
  }
  return sum;
}

/// The samples at the places of one layer where blocks begin and end.
class Search {
 public:
  Search(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec, std::size_t layer,
         const ScaleSearch& search)
      : checkpoint_(checkpoint), spec_(spec), layer_(layer), search_(search) {}

  /// Computes the layer as it is.
  Status prepare() {
    LANNER_ASSIGN_OR_RETURN(const auto runner, LayerRunner::load(checkpoint_, spec_, layer_, runner_options()));
    const auto size = static_cast<std::size_t>(search_.rows * spec_.hidden);
    for (std::size_t i = 0; i < search_.samples; ++i) {
      Sample sample;
      sample.before.resize(size);
      LANNER_RETURN_IF_ERROR(search_.read_input(i, sample.before));
      sample.behind = sample.before;
      if (!spec_.parallel_layers) {
        LANNER_RETURN_IF_ERROR(runner->run(sample.behind, {}, LayerPart::kAttention));
        sample.between = sample.behind;
        LANNER_RETURN_IF_ERROR(runner->run(sample.behind, {}, LayerPart::kMlp));
      } else {
        LANNER_RETURN_IF_ERROR(runner->run(sample.behind, {}));
      }
      samples_.push_back(std::move(sample));
    }
    return {};
  }

  /// The mean of the samples' best ratios.
  Result<double> best_ratio(const SmoothingGroup& group, std::span<const float> inputs) {
    LANNER_ASSIGN_OR_RETURN(const auto gains, norm_gains(checkpoint_, spec_, group));
    LANNER_ASSIGN_OR_RETURN(const auto weights, relative_weights(checkpoint_, group.linears, search_.group_size));
    std::vector<double> least(samples_.size(), std::numeric_limits<double>::infinity());
    std::vector<double> best(samples_.size());
    for (int step = 0; step < kSearchedRatios; ++step) {
      const double ratio = static_cast<double>(step) / kSearchedRatios;
      const auto scales = smoothing_scales(inputs, weights, gains, ratio);
      LANNER_ASSIGN_OR_RETURN(const std::vector<double> errors, errors_of(group, scales));
      for (std::size_t i = 0; i < errors.size(); ++i) {
        if (errors[i] >= least[i]) continue;
        least[i] = errors[i];
        best[i] = ratio;
      }
      if (search_.on_ratio) search_.on_ratio();
    }
    double sum = 0;
    for (const double ratio : best) sum += ratio;
    return sum / static_cast<double>(best.size());
  }

 private:
  struct Sample {
    std::vector<float> before;   // (rows, hidden) the layer
    std::vector<float> between;  // attention and MLP
    std::vector<float> behind;   // the layer
  };

  LayerRunnerOptions runner_options() const { return {.rows = search_.rows, .threads = search_.threads}; }

  LayerPart part_of(const SmoothingGroup& group) const {
    if (spec_.parallel_layers) return LayerPart::kWhole;
    const bool attention = group.input == LinearInput::kAttention || group.input == LinearInput::kAttentionOut;
    return attention ? LayerPart::kAttention : LayerPart::kMlp;
  }

  /// Of each sample's block with the group's weights rounded in these scales.
  Result<std::vector<double>> errors_of(const SmoothingGroup& group, const std::vector<float>& scales) const {
    ReplacingCheckpoint rounded(checkpoint_);
    for (const LinearTensor& linear : group.linears) {
      LANNER_ASSIGN_OR_RETURN(const DenseRows rows, DenseRows::open(checkpoint_, linear));
      LANNER_ASSIGN_OR_RETURN(std::vector<float> values, search_.round(rows, scales));
      rounded.replace(linear.name, std::move(values));
    }
    const LayerPart part = part_of(group);
    LANNER_ASSIGN_OR_RETURN(const auto runner, LayerRunner::load(rounded, spec_, layer_, runner_options()));
    std::vector<double> errors;
    std::vector<float> hidden;
    for (const Sample& sample : samples_) {
      hidden = part == LayerPart::kMlp ? sample.between : sample.before;
      LANNER_RETURN_IF_ERROR(runner->run(hidden, {}, part));
      errors.push_back(squared_error(hidden, part == LayerPart::kAttention ? sample.between : sample.behind));
    }
    return errors;
  }

  const model::Checkpoint& checkpoint_;
  const model::DecoderSpec& spec_;
  const std::size_t layer_;
  const ScaleSearch& search_;
  std::vector<Sample> samples_;
};

}  // namespace

ScaleSearch make_scale_search(std::span<const std::span<const std::int32_t>> windows, int threads) {
  constexpr std::size_t kSearchedSamples = 4;
  return {.rows = static_cast<std::int64_t>(windows.front().size()),
          .samples = std::min(windows.size(), kSearchedSamples),
          .threads = threads};
}

double work_of_search(const ScaleSearch& search, const model::DecoderSpec& spec, const model::LayerSpec& layer) {
  const auto groups = static_cast<double>(smoothing_groups(spec, layer).size());
  return work_of_ratio(search, layer) * kSearchedRatios * groups;
}

double work_of_ratio(const ScaleSearch& search, const model::LayerSpec& layer) {
  constexpr double kTokensOfLoading = 200;  // what loading a layer with other weights costs
  return layer_weights(layer) *
         (0.5 * static_cast<double>(search.samples) * static_cast<double>(search.rows) + kTokensOfLoading);
}

Result<std::vector<double>> search_ratios(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                          std::size_t layer, const LayerStatistics& statistics,
                                          const ScaleSearch& search) {
  Search run(checkpoint, spec, layer, search);
  LANNER_RETURN_IF_ERROR(run.prepare());
  std::vector<double> ratios;
  for (const SmoothingGroup& group : smoothing_groups(spec, spec.layers[layer])) {
    const auto inputs = statistics.at(static_cast<std::size_t>(group.input)).absolute_mean();
    LANNER_ASSIGN_OR_RETURN(const double ratio, run.best_ratio(group, inputs));
    ratios.push_back(ratio);
  }
  return ratios;
}

}  // namespace lanner::quant
