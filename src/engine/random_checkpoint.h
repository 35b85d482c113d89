#pragma once
// For tests: a small Llama with random weights, made in memory. Logits spread widely enough that a wrong rotation,
// scale or mask changes the greedy token.

#include <string>

#include "model/checkpoint.h"

namespace lanner {

struct RandomModel {
  std::int64_t vocab = 96;
  std::int64_t hidden = 64;
  std::int64_t intermediate = 96;
  std::int64_t layers = 2;
  std::int64_t heads = 4;
  std::int64_t kv_heads = 2;
  std::int64_t max_position = 2048;
  ops::WeightFormat format = ops::WeightFormat::kF32;  // of the projections: kF32, kInt4 or kInt8
  std::string poisoned_tensor;                         // a vector whose first element is made NaN
};

std::shared_ptr<const model::Checkpoint> make_random_checkpoint(const RandomModel& shape);

}  // namespace lanner
