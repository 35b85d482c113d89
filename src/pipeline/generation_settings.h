#pragma once
// What a request asks for, what the model's makers suggest and the defaults, made into the engine's terms.

#include <cstdint>
#include <string>
#include <vector>

#include "lanner/pipeline.h"
#include "model/generation_config.h"
#include "text/tokenizer.h"

namespace lanner {

/// The request goes before the model's generation_config.json, and that before temperature 0.8, top_p 0.8, top_k 40.
/// A request that sets temperature, top_p, top_k or min_p samples, even where the model's makers suggest greedy.
SamplingOptions resolve_sampling(const GenerationConfig& config, const model::GenerationDefaults& defaults);

/// Where a request stops: at tokens, which the engine sees, and at strings, which only the pipeline sees.
struct StopRules {
  std::vector<std::int32_t> ids;
  std::vector<std::string> strings;
};

/// Stop words of the chat template and stop strings of the request that are one special token become ids: their text
/// would never show, since special tokens are left out of answers.
Result<StopRules> resolve_stops(const GenerationConfig& config, const std::vector<std::int32_t>& eos_ids,
                                const std::vector<std::string>& template_stop_words, const Tokenizer& tokenizer);

/// Every bad word as it is spelled at the start of a text and after a blank.
Result<std::vector<std::vector<std::int32_t>>> resolve_bad_words(const std::vector<std::string>& words,
                                                                 const Tokenizer& tokenizer);

}  // namespace lanner
