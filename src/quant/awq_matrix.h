#pragma once
// One matrix rounded to 4 bits and packed as AWQ's "gemm" version has it.
//
// Each row is cut into groups of consecutive columns. Of a group with the least and greatest value, of which 0 counts
// as one (LMDeploy does without, and loses groups of one sign, since their zero point does not fit 4 bits; all others
// have values of both signs and come out the same):
//
//     scale = fp16(max(greatest - least, 1e-5) / 15)
//     zero  = clamp(-round(least / scale), 0, 15)
//     code  = clamp(round(w / scale) + zero, 0, 15),       so that  w ≈ scale * (code - zero)
//
// in fp32, with halves rounded to even. All of it with the scale as it is stored. (spec of the tensors:
// model/group_quantization.h)

#include <cstdint>
#include <span>
#include <vector>

#include "core/thread_pool.h"
#include "lanner/status.h"
#include "quant/dense_rows.h"
#include "quant/smoothing.h"

namespace lanner::quant {

inline constexpr std::int64_t kRowsOfWord = 8;  // rows of a column that lie in one word

struct AwqMatrix {
  std::vector<std::uint32_t> codes;   // (cols, rows / 8)
  std::vector<std::uint16_t> scales;  // (cols / group, rows) fp16
  std::vector<std::uint32_t> zeros;   // (cols / group, rows / 8)
};

/// The matrix after smoothing. `group_size` divides its columns and 8 its rows (CHECKed). kCorrupt where a weight is
/// not finite, or too large for a scale in fp16.
Result<AwqMatrix> round_awq(const DenseRows& matrix, const TensorFactors& factors, std::int64_t group_size,
                            ThreadPool& pool);

/// What the matrix (rows, cols) becomes when its columns are multiplied by `scales`, rounded, and divided by them
/// again.
Result<std::vector<float>> rounded_weights(const DenseRows& matrix, std::span<const float> scales,
                                           std::int64_t group_size);

}  // namespace lanner::quant
