#pragma once
// The text goes through the model, layer by layer: all samples through one, then all through the next. Who calls hears
// what its products read.
//
// What a layer hands on is what it computes as it is; or, where round_layer is given, what it computes when it has been
// rounded, for which all samples go through it once more.
//
// In memory is one layer and one sample; hidden states of all samples lie in two files, of which each layer reads one
// and writes the other. A run that was killed goes on with the layer that it was in.

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "quant/layer_runner.h"

namespace lanner::quant {

using ReadInput = std::function<Status(std::size_t sample, std::span<float> hidden)>;

struct CalibrationOptions {
  std::vector<std::span<const std::int32_t>> windows;  // of one length, at least one
  int threads = 0;                                     // 0: all
  std::array<std::string, 2> states;                   // the paths of those files
  std::size_t first_layer = 0;                         // those before it are done; their states are in the files
  ObserveInput observe;                                // of each sample, once for each layer
  /// Called behind each sample that is observed, with what the layer makes of it, (tokens, hidden), and its keys and
  /// values in the runner. May be empty.
  std::function<void(const LayerRunner& runner, std::span<const float> hidden)> observe_sample;
  /// Called when all samples have been observed: the checkpoint that has the layer rounded. May be empty.
  std::function<Result<std::unique_ptr<const model::Checkpoint>>(std::size_t layer)> round_layer;
  /// Called when the states behind the layer are written; `read_input` reads the hidden states that a sample brings to
  /// it, (tokens, hidden).
  std::function<Status(std::size_t layer, const ReadInput& read_input)> on_layer;
  std::function<void()> on_sample;  // each time that one has gone through a layer; may be empty
};

/// What the two files take.
std::int64_t state_bytes(const model::DecoderSpec& spec, const CalibrationOptions& options);

/// kInvalidArgument for tokens that the model does not have.
Status calibrate(const model::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                 const CalibrationOptions& options);

/// kCorrupt: what whoever observes a layer says of values that are no numbers.
Status not_finite(const model::Checkpoint& checkpoint, std::size_t layer);

}  // namespace lanner::quant
