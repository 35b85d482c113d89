#pragma once
// A run of a method that smooths (smoothing.h) before it rounds each matrix by itself: calibration gives the scales of
// each layer, which a scratch file keeps until the folder is written.

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lanner/status.h"
#include "model/safetensors_writer.h"
#include "quant/channel_statistics.h"
#include "quant/dense_rows.h"
#include "quant/plan.h"
#include "quant/quantize_run.h"
#include "quant/scale_search.h"
#include "quant/smoothing.h"
#include "quant/work_folder.h"

namespace lanner::quant {

struct SmoothingOptions : Options {
  bool search_scale = false;  // scale_search.h, with the first few windows
};

class SmoothingRun : public QuantizeRun {
 public:
  SmoothingRun(const model::Checkpoint& checkpoint, const Plan& plan, const SmoothingOptions& options,
               WorkFolder& folder)
      : QuantizeRun(checkpoint, plan, options, folder), search_scale_(options.search_scale) {}

 protected:
  /// What a matrix becomes when its columns are multiplied by `scales`, rounded, and divided by them again.
  virtual Result<std::vector<float>> rounded(const DenseRows& matrix, std::span<const float> scales) = 0;
  /// Appends what a matrix with these factors becomes in the folder.
  virtual Status write_rounded(const DenseRows& matrix, const TensorFactors& factors,
                               model::SafetensorsWriter& writer) = 0;

 private:
  std::string layer_file(std::size_t layer) const override;
  std::int64_t layer_file_bytes(const std::vector<OutputShard>& /*shards*/) const override { return 0; }  // a few KB
  int passes(std::size_t /*layer*/) const override { return 1; }
  double extra_work_of_token(std::size_t /*layer*/) const override { return 0; }
  double work_behind(std::size_t layer) const override;
  Status prepare(std::size_t first, CalibrationOptions& calibration) override;
  Result<FolderContents> contents() override;

  /// Columns of a row that are smoothed against one another.
  std::int64_t smoothed_group() const;
  Status finish_layer(std::size_t layer, const ReadInput& read_input);
  ScaleSearch scale_search() const;
  Result<std::vector<ScaleFormula>> search(std::size_t layer, const ReadInput& read_input);
  Result<SmoothingFactors> read_factors() const;

  const bool search_scale_;
  LayerStatistics statistics_;  // of the layer that samples go through
};

/// A whole run of a class that derives from it.
template <typename Run>
Result<Outcome> run_smoothed(const model::Checkpoint& checkpoint, const Plan& plan, const SmoothingOptions& options) {
  model::Json settings = settings_of(checkpoint, plan, options);
  settings["search of scales"] = options.search_scale;
  LANNER_ASSIGN_OR_RETURN(WorkFolder folder, WorkFolder::open(options.destination, settings, options.resume));
  return Run(checkpoint, plan, options, folder).run();
}

}  // namespace lanner::quant
