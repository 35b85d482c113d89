#pragma once
// The text goes through the model, layer by layer: all samples through one, then all through the next. What its
// products read is collected on the way (channel_statistics.h).
//
// In memory is one layer and one sample; hidden states of all samples lie in two files, of which each layer reads one
// and writes the other. A run that was killed goes on with the layer that it was in.

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "quant/channel_statistics.h"

namespace lanner::quant {

using ReadInput = std::function<Status(std::size_t sample, std::span<float> hidden)>;

struct CalibrationOptions {
  std::vector<std::span<const std::int32_t>> windows;  // of one length, at least one
  int threads = 0;                                     // 0: all
  std::array<std::string, 2> states;                   // the paths of those files
  std::size_t first_layer = 0;                         // those before it are done; their states are in the files
  /// Called with what a layer's products read, when its states are written; `read_input` reads the hidden states that
  /// a sample brings to the layer, (tokens, hidden).
  std::function<Status(std::size_t layer, const LayerStatistics& statistics, const ReadInput& read_input)> on_layer;
  std::function<void()> on_sample;  // each sample of each layer; may be empty
};

/// What the two files take.
std::int64_t state_bytes(const model::DecoderSpec& spec, const CalibrationOptions& options);

/// kInvalidArgument for tokens that the model does not have, kCorrupt where the model computes what is no number.
Status calibrate(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                 const CalibrationOptions& options);

}  // namespace lanner::quant
