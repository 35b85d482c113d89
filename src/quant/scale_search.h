#pragma once
// --search-scale: how much of smoothing's scales comes from the inputs and how much from the weights is tried out.
//
// Of each group: for ratio = 0/20 … 19/20 the scales s = a^ratio / w^(1 - ratio), with a the mean magnitude of the
// inputs, and what the block computes with weights that were multiplied by s, rounded, and divided by s again.
// The ratio with the least mean square error is a sample's; the group's is the mean of the samples'. (LMDeploy takes
// for a what the one sample brings, which costs a set of rounded weights for each; the final scales are of the mean.)
// The block is attention, up to the residual stream, for what comes before it, and the MLP for the rest; all of the
// layer where both read the same input. Each group is tried by itself, beside weights that are not rounded.

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

namespace lanner::quant {

inline constexpr int kSearchedRatios = 20;

/// What a matrix (rows, cols) becomes when its columns are multiplied by `scales`, rounded, and divided by them again.
using RoundWeights = std::function<Result<std::vector<float>>(const DenseRows& matrix, std::span<const float> scales)>;

struct ScaleSearch {
  std::int64_t group_size = 0;  // of the weights' part in the scales, see smoothing.h
  RoundWeights round;
  std::int64_t rows = 0;    // tokens of a sample
  std::size_t samples = 0;  // the first ones are tried
  int threads = 0;
  ReadInput read_input;
  std::function<void()> on_ratio;  // each that was tried; may be empty
};

/// With the first few of these windows.
ScaleSearch make_scale_search(std::span<const std::span<const std::int32_t>> windows, int threads);
/// What trying one ratio costs, in products of a weight of the layer with a token: about half of the layer for each
/// sample.
double work_of_ratio(const ScaleSearch& search, const model::LayerSpec& layer);
/// And all that search_ratios() tries of a layer.
double work_of_search(const ScaleSearch& search, const model::DecoderSpec& spec, const model::LayerSpec& layer);

/// One ratio for each of the layer's smoothing_groups().
Result<std::vector<double>> search_ratios(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                          std::size_t layer, const LayerStatistics& statistics,
                                          const ScaleSearch& search);

}  // namespace lanner::quant
