#pragma once
// --search-scale: how smoothing's scales are made of inputs and weights is tried out for each group.
//
// With a the mean magnitude of a channel's inputs and w its share in the weights (smoothing.h), for r = 0/20 … 19/20:
//
//     s = a^r / w^(1 - r)      as LMDeploy shares them out
//     s = a^r                  as AWQ's paper (arXiv 2306.00978) has it; with r = 0 nothing is smoothed
//
// and what smoothing does without a search. Of each: what the block computes with weights that were multiplied by s,
// rounded, and divided by s again. The formula with the least sum of squared errors over the tokens of all samples is
// taken; on them no group is therefore rounded worse than without a search, given those before it (which `lite
// calibrate` does not promise: it tries LMDeploy's alone). (LMDeploy takes the mean of the samples' best ratios, and
// for a what the one sample brings.)
//
// The block is attention, up to the residual stream, for what comes before it, and the MLP for the rest; all of the
// layer where both read the same input. Groups are searched in their order, each beside those that are rounded already.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "quant/calibration.h"
#include "quant/channel_statistics.h"
#include "quant/dense_rows.h"
#include "quant/smoothing.h"

namespace lanner::quant {

/// All of the above, and LMDeploy's alone.
std::vector<ScaleFormula> searched_formulas();
std::vector<ScaleFormula> shared_formulas();

/// What a matrix (rows, cols) becomes when its columns are multiplied by `scales`, rounded, and divided by them again.
using RoundWeights = std::function<Result<std::vector<float>>(const DenseRows& matrix, std::span<const float> scales)>;

struct ScaleSearch {
  std::int64_t group_size = 0;         // of the weights' part in the scales, see smoothing.h
  std::vector<ScaleFormula> formulas;  // that are tried
  RoundWeights round;
  std::int64_t rows = 0;        // tokens of a sample
  std::int64_t tried_rows = 0;  // of which the first ones are tried
  std::size_t samples = 0;      // likewise
  int threads = 0;
  ReadInput read_input;
  std::function<void()> on_formula;  // each that was tried; may be empty
};

/// With at most 256 tokens of each of at most 8 of these windows, the first ones.
ScaleSearch make_scale_search(std::span<const std::span<const std::int32_t>> windows, int threads);
/// What trying one formula costs, in products of a weight of the layer with a token: about half of the layer for each
/// sample.
double work_of_formula(const ScaleSearch& search, const model::LayerSpec& layer);
/// And all that search_formulas() tries of a layer.
double work_of_search(const ScaleSearch& search, const model::DecoderSpec& spec, const model::LayerSpec& layer);

/// One for each of the layer's smoothing_groups().
Result<std::vector<ScaleFormula>> search_formulas(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                                  std::size_t layer, const LayerStatistics& statistics,
                                                  const ScaleSearch& search);

}  // namespace lanner::quant
