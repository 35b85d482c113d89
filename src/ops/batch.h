#pragma once
// The rows of one step: which sequence each belongs to and where in it it stands.
//
// A step is a list of slices, one for each sequence that takes part. Decode is a slice of 1 row, a draft to verify
// 2 to 8, a prompt chunk any number. Rows of a slice lie together and ascend in position; positions before
// first_position are in the cache already. Everything points to host memory that outlives the call that it is given to.

#include <cstdint>
#include <span>

namespace lanner::ops {

struct SequenceSlice {
  std::int32_t first_row = 0;
  std::int32_t rows = 0;
  std::int32_t first_position = 0;
  std::span<const std::int32_t> blocks;  // KV block ids; covers first_position + rows tokens
};

/// Stands for the token of row `row` of the last Backend::sample(), where that has answered before the token is known.
constexpr std::int32_t sampled_token(std::int64_t row) { return static_cast<std::int32_t>(-1 - row); }

struct Batch {
  std::int32_t rows = 0;
  std::span<const std::int32_t> tokens;     // (rows): ids, or sampled_token()
  std::span<const std::int32_t> positions;  // (rows)
  std::span<const SequenceSlice> slices;
};

}  // namespace lanner::ops
