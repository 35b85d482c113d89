#pragma once
// What a model's makers suggest for sampling, and the tokens at which it stops.

#include <cstdint>
#include <optional>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"

namespace lanner::model {

struct GenerationDefaults {
  std::vector<std::int32_t> eos_ids;  // each once; empty when the checkpoint names none
  std::optional<bool> do_sample;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int> top_k;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
};

/// generation_config.json, with the eos_token_id of config.json where it has none. kCorrupt for a value out of range.
Result<GenerationDefaults> read_generation_defaults(const Checkpoint& checkpoint);

}  // namespace lanner::model
