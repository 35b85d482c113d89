#pragma once
// The order of the rows of q and k projections.
//
// Transformers rotates element i of a head together with element i + head_dim / 2. llama.cpp rotates neighbours, and
// its converter interleaves the two halves of each head's rows so that the result is the same. We rotate halves on
// every road, hence undo that at load:
//
//     plain row  head * d + half * d/2 + i   =   pairwise row  head * d + 2 i + half      (half = 0, 1; i < d/2)

#include <cstdint>
#include <vector>

#include "ops/weight_source.h"

namespace lanner::model {

/// `heads` divides the rows, an even number to each; a bug otherwise.
ops::WeightSource undo_pairwise_rope(ops::WeightSource source, std::int64_t heads);
/// The same for the projection's bias, which the converter interleaves too.
std::vector<float> undo_pairwise_rope(const std::vector<float>& bias, std::int64_t heads);

}  // namespace lanner::model
