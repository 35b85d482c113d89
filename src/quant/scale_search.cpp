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

constexpr int kRatios = 20;

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

double squared_error(std::span<const float> got, std::span<const float> wanted) {
  double sum = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto difference = static_cast<double>(got[i] - wanted[i]);
    sum += difference * difference;
  }
  return sum;
}

/// The samples at the places of one layer where blocks begin and end.
class Search {
 public:
  Search(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec, std::size_t layer,
         const ScaleSearch& search)
      : checkpoint_(checkpoint), spec_(spec), layer_(layer), search_(search), rounded_(checkpoint) {}

  /// Computes the layer as it is.
  Status prepare() {
    LANNER_ASSIGN_OR_RETURN(const auto runner, LayerRunner::load(checkpoint_, spec_, layer_, runner_options()));
    std::vector<float> whole(static_cast<std::size_t>(search_.rows * spec_.hidden));
    for (std::size_t i = 0; i < search_.samples; ++i) {
      LANNER_RETURN_IF_ERROR(search_.read_input(i, whole));
      Sample sample;
      sample.before.assign(whole.begin(), whole.begin() + search_.tried_rows * spec_.hidden);
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

  /// The group is rounded by it from then on.
  Result<ScaleFormula> best_formula(const SmoothingGroup& group, const ChannelStatistics& inputs) {
    LANNER_ASSIGN_OR_RETURN(const auto gains, norm_gains(checkpoint_, spec_, group));
    LANNER_ASSIGN_OR_RETURN(const auto weights, relative_weights(checkpoint_, group.linears, search_.group_size));
    const auto round = [&](const ScaleFormula& formula) {
      return round_group(group, smoothing_scales(inputs, weights, gains, formula));
    };
    ScaleFormula best;
    double least = std::numeric_limits<double>::infinity();
    for (const ScaleFormula& formula : search_.formulas) {
      if (round(formula).ok()) {  // else the weights that it makes do not fit, and it is none to choose
        LANNER_ASSIGN_OR_RETURN(const double error, error_of(part_of(group)));
        if (error < least) {
          least = error;
          best = formula;
        }
      }
      if (search_.on_formula) search_.on_formula();
    }
    LANNER_RETURN_IF_ERROR(round(best));
    return best;
  }

 private:
  struct Sample {
    std::vector<float> before;   // (tried rows, hidden) the layer
    std::vector<float> between;  // attention and MLP
    std::vector<float> behind;   // the layer
  };

  LayerRunnerOptions runner_options() const { return {.rows = search_.tried_rows, .threads = search_.threads}; }

  LayerPart part_of(const SmoothingGroup& group) const {
    if (spec_.parallel_layers) return LayerPart::kWhole;
    const bool attention = group.input == LinearInput::kAttention || group.input == LinearInput::kAttentionOut;
    return attention ? LayerPart::kAttention : LayerPart::kMlp;
  }

  Status round_group(const SmoothingGroup& group, const std::vector<float>& scales) {
    for (const LinearTensor& linear : group.linears) {
      LANNER_ASSIGN_OR_RETURN(const DenseRows rows, DenseRows::open(checkpoint_, linear));
      LANNER_ASSIGN_OR_RETURN(std::vector<float> values, search_.round(rows, scales));
      rounded_.replace(linear.name, std::move(values));
    }
    return {};
  }

  /// Of the samples' blocks with what is rounded.
  Result<double> error_of(LayerPart part) const {
    LANNER_ASSIGN_OR_RETURN(const auto runner, LayerRunner::load(rounded_, spec_, layer_, runner_options()));
    double error = 0;
    std::vector<float> hidden;
    for (const Sample& sample : samples_) {
      hidden = part == LayerPart::kMlp ? sample.between : sample.before;
      LANNER_RETURN_IF_ERROR(runner->run(hidden, {}, part));
      error += squared_error(hidden, part == LayerPart::kAttention ? sample.between : sample.behind);
    }
    return error;
  }

  const model::Checkpoint& checkpoint_;
  const model::DecoderSpec& spec_;
  const std::size_t layer_;
  const ScaleSearch& search_;
  ReplacingCheckpoint rounded_;
  std::vector<Sample> samples_;
};

}  // namespace

std::vector<ScaleFormula> shared_formulas() {
  std::vector<ScaleFormula> formulas;
  for (int i = 0; i < kRatios; ++i) {
    const double ratio = static_cast<double>(i) / kRatios;
    formulas.push_back({.greatest = false, .of_inputs = ratio, .of_weights = 1 - ratio});
  }
  return formulas;
}

std::vector<ScaleFormula> searched_formulas() {
  std::vector<ScaleFormula> formulas;
  for (int i = 0; i < kRatios; ++i) {
    formulas.push_back({.greatest = false, .of_inputs = static_cast<double>(i) / kRatios, .of_weights = 0});
  }
  formulas.emplace_back();
  const std::vector<ScaleFormula> shared = shared_formulas();
  formulas.insert(formulas.end(), shared.begin(), shared.end());
  return formulas;
}

ScaleSearch make_scale_search(std::span<const std::span<const std::int32_t>> windows, int threads) {
  constexpr std::size_t kMostSamples = 8;
  constexpr std::int64_t kMostRows = 256;
  const auto rows = static_cast<std::int64_t>(windows.front().size());
  return {.rows = rows,
          .tried_rows = std::min(rows, kMostRows),
          .samples = std::min(windows.size(), kMostSamples),
          .threads = threads};
}

double work_of_search(const ScaleSearch& search, const model::DecoderSpec& spec, const model::LayerSpec& layer) {
  const auto groups = static_cast<double>(smoothing_groups(spec, layer).size());
  return work_of_formula(search, layer) * static_cast<double>(search.formulas.size()) * groups;
}

double work_of_formula(const ScaleSearch& search, const model::LayerSpec& layer) {
  constexpr double kTokensOfLoading = 200;  // what loading a layer with other weights costs
  return layer_weights(layer) *
         (0.5 * static_cast<double>(search.samples) * static_cast<double>(search.tried_rows) + kTokensOfLoading);
}

Result<std::vector<ScaleFormula>> search_formulas(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                                  std::size_t layer, const LayerStatistics& statistics,
                                                  const ScaleSearch& search) {
  Search run(checkpoint, spec, layer, search);
  LANNER_RETURN_IF_ERROR(run.prepare());
  std::vector<ScaleFormula> formulas;
  for (const SmoothingGroup& group : smoothing_groups(spec, spec.layers[layer])) {
    LANNER_ASSIGN_OR_RETURN(const ScaleFormula formula,
                            run.best_formula(group, statistics.at(static_cast<std::size_t>(group.input))));
    formulas.push_back(formula);
  }
  return formulas;
}

}  // namespace lanner::quant
