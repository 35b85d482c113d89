#pragma once
// The flags that say how answers are drawn, for verbs that generate text.

#include <optional>
#include <string>
#include <vector>

#include "lanner/pipeline.h"

namespace CLI {
class App;
}

namespace lanner::cli {

struct SamplingFlags {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  std::optional<std::uint64_t> seed;
  int max_new_tokens = 512;
  bool do_sample = false;
  bool greedy = false;
  std::vector<std::string> stop;
};

void add_sampling_flags(CLI::App& verb, SamplingFlags& flags);
/// Ranges are the engine's to check; this refuses flags that contradict each other.
Result<GenerationConfig> generation_config(const SamplingFlags& flags);

}  // namespace lanner::cli
