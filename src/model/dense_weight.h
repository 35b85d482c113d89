#pragma once
// What loading computes with a weight's values rather than its layout; rare, hence simple.

#include <vector>

#include "ops/weight_source.h"

namespace lanner::model {

/// As fp32 with its columns in their natural order, whatever the format and the input order were. `source` is not
/// packed.
ops::WeightSource widened(const ops::WeightSource& source);

/// Every row divided by its Euclidean norm (of a row of zeros: left alone). Quantized weights keep their codes; dense
/// ones become fp32, or fp16 where they had 16 bits: elements of unit rows are in its range, and it rounds less than
/// bf16.
ops::WeightSource with_unit_rows(ops::WeightSource source);

}  // namespace lanner::model
