#pragma once
// AWQ's smoothing (arXiv 2306.00978) in the form that LMDeploy gives it: channels whose inputs are large get finer
// steps, at the price of those whose inputs are small, and the model computes what it did before.
//
// A smoothed group is the Linears that read one input, behind what makes that input: a norm, or the rows of another
// Linear. For input channel j, with a the greatest magnitude of the input that calibration saw:
//
//     w_j = mean over all rows of all the Linears of |W_rj| / (greatest |W_r| in its group of columns, or in the row)
//     s_j = max(a_j^0.5 / max(w_j^0.5, 1e-4), 1e-4),  then  s_j /= sqrt(max(s) * min(s))
//
// over the channels whose norm has a gain; in the others s_j = 1. Column j of the Linears is multiplied by s_j; the
// gain (and bias) of the norm, or row j (and bias) of the Linear in front, divided by it.
//
// Groups: attention norm -> q, k, v; MLP norm -> gate, up (all of them behind one norm where it is the same one);
// v -> o where there are as many value heads as query heads and v is a tensor of its own (of Qwen 1 also where it is
// not); up -> down where the MLP has a gate and up is a tensor of its own.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "quant/channel_statistics.h"

namespace lanner::quant {

class DenseRows;

/// What smoothing does to one tensor of the checkpoint, first to its columns.
struct TensorFactors {
  std::vector<float> multiply_columns;  // (cols) or empty
  std::vector<float> divide_rows;       // (rows; of a norm or a bias its elements) or empty
};

/// Row `row` of the matrix with these factors into `values`, (cols).
Status read_smoothed(const DenseRows& matrix, const TensorFactors& factors, std::int64_t row, std::span<float> values);

/// By the names that the checkpoint gives its tensors.
using SmoothingFactors = std::map<std::string, TensorFactors, std::less<>>;

/// A matrix of the checkpoint in which projections lie, whole.
struct LinearTensor {
  std::string name;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

/// The matrices that the layer's projections lie in, each once, in the order q, k, v, o, gate, up, down.
std::vector<LinearTensor> linear_tensors(const model::LayerSpec& layer);
/// Those of them that read one input.
std::vector<LinearTensor> linear_tensors(const model::LayerSpec& layer, LinearInput input);

/// Elements of all of them.
double layer_weights(const model::LayerSpec& layer);

/// Whose columns are multiplied, by what input, and what makes it.
struct SmoothingGroup {
  LinearInput input = LinearInput::kAttention;
  std::vector<LinearTensor> linears;
  model::NormSpec norm;                          // of which the input comes, or
  const model::ProjectionSpec* front = nullptr;  // the projection whose rows make it; points into the layer
};

std::vector<SmoothingGroup> smoothing_groups(const model::DecoderSpec& spec, const model::LayerSpec& layer);

/// In place of the columns of a group: all of a row.
inline constexpr std::int64_t kWholeRow = std::int64_t{1} << 40;

/// s of each of a layer's groups, in their order.
using GroupScales = std::vector<std::vector<float>>;

/// How s is made of a and w; above as smoothing does it where nothing is searched for.
struct ScaleFormula {
  bool greatest = true;  // a: the greatest magnitude of the inputs; else the mean one
  double of_inputs = 0.5;
  double of_weights = 0.5;  // the exponents; with both 0 nothing is smoothed
};

/// By the statistics of the groups' inputs. `formulas`: of each group, as scale_search.h finds them; empty: as above.
/// kCorrupt for weights that are not finite.
Result<GroupScales> scales_of_layer(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                    const model::LayerSpec& layer, const LayerStatistics& statistics,
                                    std::int64_t group_size, std::span<const ScaleFormula> formulas = {});

/// w, of a group's concatenated Linears.
Result<std::vector<float>> relative_weights(const model::Checkpoint& checkpoint,
                                            const std::vector<LinearTensor>& linears, std::int64_t group_size);

/// The gain of the norm in front of a group; empty where there is none.
Result<std::vector<float>> norm_gains(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                      const SmoothingGroup& group);

/// What they do to the layer's tensors, which is added to `factors`.
void add_factors(const std::vector<SmoothingGroup>& groups, const GroupScales& scales, SmoothingFactors& factors);

/// s of one group. `inputs`: of each channel; `weights`: w; `gains`: of the norm, or empty.
std::vector<float> smoothing_scales(const ChannelStatistics& inputs, std::span<const float> weights,
                                    std::span<const float> gains, const ScaleFormula& formula = {});
/// The same; `inputs`: a.
std::vector<float> smoothing_scales(std::span<const float> inputs, std::span<const float> weights,
                                    std::span<const float> gains, const ScaleFormula& formula = {});

}  // namespace lanner::quant
