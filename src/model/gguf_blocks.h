#pragma once
// ggml's block formats to the form in which devices repack weights.
//
//   F32, F16, BF16   dense, where they lie
//   Q4_0, Q4_1       int4, groups of 32
//   Q4_K             int4, groups of 32, offset
//   Q8_0, Q5_0       int8, groups of 32
//   Q5_1, Q5_K       int8, groups of 32, offset
//   Q6_K             int8, groups of 16
//
// The values are those of ggml's own dequantization: scale and offset are exact in fp32 (an fp16 times at most eight
// bits), and so is scale * code; only the sum rounds, once.

#include <memory>
#include <string_view>

#include "lanner/status.h"
#include "model/gguf.h"
#include "ops/weight_source.h"

namespace lanner::model {

/// The format that a tensor type is read as; kUnsupported for others. `where` names file and tensor.
Result<ops::WeightFormat> gguf_format(const GgmlType& type, std::string_view where);

/// A tensor of shape (rows, cols). `where` names file and tensor in errors: kUnsupported for a type, kCorrupt for a
/// scale that is not finite.
Result<ops::WeightSource> unpack_gguf_matrix(const GgufTensor& tensor, const std::shared_ptr<const void>& owner,
                                             std::string_view where);

}  // namespace lanner::model
