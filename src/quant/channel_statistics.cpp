#include "quant/channel_statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace lanner::quant {

ChannelStatistics::ChannelStatistics(std::int64_t channels)
    : least_(static_cast<std::size_t>(channels), std::numeric_limits<float>::infinity()),
      greatest_(static_cast<std::size_t>(channels), -std::numeric_limits<float>::infinity()),
      sums_(static_cast<std::size_t>(channels)),
      absolute_sums_(static_cast<std::size_t>(channels)) {}

void ChannelStatistics::add(std::span<const float> values) {
  const std::size_t channels = least_.size();
  for (std::size_t begin = 0; begin < values.size(); begin += channels) {
    const float* row = values.data() + begin;
    for (std::size_t i = 0; i < channels; ++i) {
      least_[i] = std::min(row[i], least_[i]);
      greatest_[i] = std::max(row[i], greatest_[i]);
      sums_[i] += static_cast<double>(row[i]);
      absolute_sums_[i] += static_cast<double>(std::fabs(row[i]));
    }
    ++rows_;
  }
}

std::vector<float> ChannelStatistics::absolute_greatest() const {
  std::vector<float> result(least_.size());
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] = std::max(std::fabs(least_[i]), std::fabs(greatest_[i]));
  }
  return result;
}

std::vector<float> ChannelStatistics::share(const std::vector<double>& sums) const {
  std::vector<float> result;
  result.reserve(sums.size());
  for (const double sum : sums) result.push_back(static_cast<float>(sum / static_cast<double>(rows_)));
  return result;
}

bool ChannelStatistics::finite() const {
  // A NaN or an infinity stays in a sum.
  return std::ranges::all_of(absolute_sums_, [](double sum) { return std::isfinite(sum); });
}

void ChannelStatistics::append_to(std::string& bytes) const {
  const auto append = [&](const auto& values) {
    const auto part = std::as_bytes(std::span(values));
    bytes.append(reinterpret_cast<const char*>(part.data()), part.size());
  };
  append(std::array{rows_});
  append(least_);
  append(greatest_);
  append(sums_);
  append(absolute_sums_);
}

Result<ChannelStatistics> ChannelStatistics::take_from(std::string_view& bytes, std::int64_t channels) {
  ChannelStatistics result(channels);
  std::array rows{std::int64_t{0}};
  bool whole = true;
  const auto take = [&](auto& values) {
    const auto part = std::as_writable_bytes(std::span(values));
    whole = whole && bytes.size() >= part.size();
    if (!whole) return;
    std::ranges::copy(std::as_bytes(std::span(bytes)).first(part.size()), part.begin());
    bytes.remove_prefix(part.size());
  };
  take(rows);
  take(result.least_);
  take(result.greatest_);
  take(result.sums_);
  take(result.absolute_sums_);
  if (!whole) return corrupt("ends too early");
  result.rows_ = rows.front();
  return result;
}

LayerStatistics make_layer_statistics(const model::LayerSpec& layer) {
  LayerStatistics statistics;
  for (std::size_t i = 0; i < kLinearInputs; ++i) {
    statistics[i] = ChannelStatistics(input_cols(layer, static_cast<LinearInput>(i)));
  }
  return statistics;
}

}  // namespace lanner::quant
