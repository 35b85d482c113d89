#pragma once
// Which rows of a checkpoint's tensor are the rows of a projection.
//
// Some checkpoints keep several projections in one tensor (RowSlice), and some keep rotary pairs as neighbours:
// Transformers rotates element i of a head together with element i + rotary_dim / 2, llama.cpp and ChatGLM rotate
// neighbours. We rotate halves on every road, hence put such rows into that order at load:
//
//     row  head * d + half * r/2 + i   is the tensor's   head * d + 2 i + half    (half = 0, 1; i < r/2; r of d rotate)
//
// Both are one list of row numbers, applied once.

#include <cstdint>
#include <span>
#include <vector>

#include "model/decoder_spec.h"
#include "ops/weight_source.h"

namespace lanner::model {

/// Rows of the tensor that the projection's rows lie in.
std::int64_t tensor_rows(const ProjectionSpec& projection);

/// For each row of a checked projection, the tensor's row that it is.
std::vector<std::int64_t> rows_in_tensor(const ProjectionSpec& projection);

/// These rows of a tensor. Neighbouring rows of a dense tensor are pointed at where they lie; all else is copied.
ops::WeightSource gather_rows(const ops::WeightSource& tensor, std::span<const std::int64_t> rows);
/// The same of a bias, which checkpoints keep in the order of its weight.
std::vector<float> gather_rows(const std::vector<float>& bias, std::span<const std::int64_t> rows);

}  // namespace lanner::model
