#pragma once
// One matrix rounded to 4 bits (group_rounding.h) and packed as AWQ's "gemm" version has it.

#include <cstdint>
#include <span>
#include <vector>

#include "core/thread_pool.h"
#include "lanner/status.h"
#include "quant/dense_rows.h"
#include "quant/group_rounding.h"
#include "quant/packed_matrix.h"
#include "quant/smoothing.h"

namespace lanner::quant {

/// The matrix after smoothing. The groups divide its columns and 8 its rows (CHECKed). kCorrupt where a weight is
/// not finite, or too large for a scale in fp16.
Result<PackedMatrix> round_awq(const DenseRows& matrix, const TensorFactors& factors, const Grouping& grouping,
                               ThreadPool& pool);

/// What the matrix (rows, cols) becomes when its columns are multiplied by `scales`, rounded, and divided by them
/// again.
Result<std::vector<float>> rounded_weights(const DenseRows& matrix, std::span<const float> scales,
                                           const Grouping& grouping, ThreadPool& pool);

}  // namespace lanner::quant
