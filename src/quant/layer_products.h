#pragma once
// The Linears of one layer, each by itself, as modules of Hugging Face's model are: what comes out of them, and of the
// last norm, where a LayerRunner only tells what goes in.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "ops/backend.h"
#include "quant/layer_runner.h"
#include "quant/smoothing.h"

namespace lanner::quant {

/// What the matrix of a layer reads. `name`: of one of its linear_tensors().
LinearInput input_of(const model::LayerSpec& layer, const std::string& name);

class LayerProducts {
 public:
  static Result<std::unique_ptr<LayerProducts>> load(const model::Checkpoint& checkpoint,
                                                     const model::DecoderSpec& spec, std::size_t layer,
                                                     const LayerRunnerOptions& options);

  /// The product with the layer's linear_tensors()[linear] and its bias, (rows, rows of the matrix), in the order of
  /// the tensor's rows. The input is (rows, cols). Valid until the next call.
  std::span<const float> product(std::size_t linear, std::span<const float> input);
  /// The last norm of the model, of hidden states (rows, hidden). Valid until the next call.
  std::span<const float> final_norm(std::span<const float> hidden);

 private:
  LayerProducts(std::unique_ptr<ops::Backend> backend, std::int64_t rows);
  Status reserve(std::int64_t most_cols);

  std::unique_ptr<ops::Backend> backend_;  // outlives the weights
  std::int64_t rows_;
  std::vector<ops::Linear> linears_;
  ops::Norm final_norm_;
  float* input_ = nullptr;   // (rows, most columns), in the backend's memory
  float* output_ = nullptr;  // likewise
  std::vector<std::int32_t> every_row_;
  std::vector<float> result_;
};

}  // namespace lanner::quant
