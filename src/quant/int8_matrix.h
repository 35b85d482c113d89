#pragma once
// One matrix rounded to 8 bits, each row (output channel) with one scale and no zero point:
//
//     scale = greatest magnitude / 127,      code = round(w / scale), halves to even,      so that  w ≈ scale * code
//
// in fp32. A row of zeros has the scale 1. (the tensors: model/row_quantization.h)

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "lanner/status.h"
#include "model/safetensors_writer.h"
#include "quant/dense_rows.h"
#include "quant/smoothing.h"

namespace lanner::quant {

struct Int8Matrix {
  std::vector<std::int8_t> codes;  // (rows, cols)
  std::vector<float> scales;       // (rows)
};

/// The matrix after smoothing. kCorrupt where a weight is not finite, or no longer is.
Result<Int8Matrix> round_int8(const DenseRows& matrix, const TensorFactors& factors, ThreadPool& pool);

/// What the matrix (rows, cols) becomes when its columns are multiplied by `scales`, rounded, and divided by them
/// again.
Result<std::vector<float>> int8_weights(const DenseRows& matrix, std::span<const float> scales, ThreadPool& pool);

/// The tensors that hold such a matrix, in the order in which append_int8() writes them.
std::vector<model::TensorHeader> int8_headers(const std::string& module, std::int64_t rows, std::int64_t cols);
Status append_int8(const Int8Matrix& matrix, model::SafetensorsWriter& writer);

}  // namespace lanner::quant
