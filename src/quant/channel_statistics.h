#pragma once
// What calibration keeps of the inputs of a layer's products: for each input channel its least, greatest and mean
// value and the greatest and mean of its magnitudes, over all tokens of all samples.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "model/decoder_spec.h"
#include "quant/layer_runner.h"

namespace lanner::quant {

class ChannelStatistics {
 public:
  ChannelStatistics() = default;
  explicit ChannelStatistics(std::int64_t channels);

  std::int64_t channels() const { return static_cast<std::int64_t>(least_.size()); }
  /// Rows of as many values as there are channels.
  void add(std::span<const float> values);

  std::int64_t rows() const { return rows_; }
  std::span<const float> least() const { return least_; }
  std::span<const float> greatest() const { return greatest_; }
  std::vector<float> absolute_greatest() const;
  std::vector<float> mean() const { return share(sums_); }
  std::vector<float> absolute_mean() const { return share(absolute_sums_); }
  /// Whether every number that was added is one.
  bool finite() const;

  /// Its bytes, for this machine, behind what is there; and back, from the front of `bytes`, which is left without
  /// them. kCorrupt where there are too few.
  void append_to(std::string& bytes) const;
  static Result<ChannelStatistics> take_from(std::string_view& bytes, std::int64_t channels);

 private:
  std::vector<float> share(const std::vector<double>& sums) const;

  std::int64_t rows_ = 0;
  std::vector<float> least_;           // (channels)
  std::vector<float> greatest_;        // (channels)
  std::vector<double> sums_;           // (channels)
  std::vector<double> absolute_sums_;  // (channels)
};

/// Of each LinearInput.
using LayerStatistics = std::array<ChannelStatistics, kLinearInputs>;

LayerStatistics make_layer_statistics(const model::LayerSpec& layer);

}  // namespace lanner::quant
