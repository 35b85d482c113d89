#pragma once
// Weights of 8 bits as LMDeploy's `lite smooth_quant` leaves them: integers with one scale for each output channel.
//
// A matrix X.weight of (rows, cols) = (output, input) features is kept as
//
//   X.weight  I8   (rows, cols)
//   X.scale   F32 (or F16, BF16)  (rows, 1)
//
// and means  weight = scale * code.  The activations that it is multiplied with are rounded as for all quantized
// weights. What is made of it: the same codes in groups of 128, 64 or 32 columns, each with its row's scale.

#include <cstdint>
#include <string>
#include <string_view>

#include "lanner/status.h"
#include "model/stored_tensor.h"
#include "ops/weight_source.h"

namespace lanner::model {

/// The tensors of one matrix, checked against its shape.
struct RowQuantizedTensors {
  const StoredTensor* codes = nullptr;
  const StoredTensor* scales = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

/// Whether the tensor of this name, such as model.layers.0.mlp.up_proj.weight, holds codes.
bool is_row_quantized(const TensorMap& tensors, std::string_view name);

/// Finds and checks without reading elements.
Result<RowQuantizedTensors> find_row_quantized(const TensorMap& tensors, std::string_view name, std::int64_t rows,
                                               std::int64_t cols, const std::string& folder);

Result<ops::WeightSource> unpack_row_quantized(const RowQuantizedTensors& tensors, const std::string& folder);

}  // namespace lanner::model
