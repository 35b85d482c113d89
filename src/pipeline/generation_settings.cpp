#include "pipeline/generation_settings.h"

#include <algorithm>
#include <utility>

#include "core/random_bits.h"
#include "pipeline/check_utf8.h"

namespace lanner {
namespace {

constexpr double kDefaultTemperature = 0.8;
constexpr double kDefaultTopP = 0.8;
constexpr int kDefaultTopK = 40;

template <typename T>
void add_once(std::vector<T>& list, T value) {
  if (std::ranges::find(list, value) == list.end()) list.push_back(std::move(value));
}

bool is_greedy(const GenerationConfig& config, const model::GenerationDefaults& defaults) {
  if (config.do_sample) return !*config.do_sample;
  const bool asks_to_sample = config.temperature || config.top_p || config.top_k || config.min_p;
  return !asks_to_sample && defaults.do_sample && !*defaults.do_sample;
}

}  // namespace

SamplingOptions resolve_sampling(const GenerationConfig& config, const model::GenerationDefaults& defaults) {
  SamplingOptions sampling;  // greedy
  const auto repetition = static_cast<float>(defaults.repetition_penalty.value_or(1.0));
  sampling.repetition_penalty = config.repetition_penalty.value_or(repetition);
  sampling.presence_penalty = config.presence_penalty;
  sampling.frequency_penalty = config.frequency_penalty;
  sampling.logprobs = config.logprobs;
  sampling.logit_bias = config.logit_bias;
  sampling.seed = config.seed ? *config.seed : random_bits();
  if (is_greedy(config, defaults)) return sampling;
  const auto temperature = static_cast<float>(defaults.temperature.value_or(kDefaultTemperature));
  sampling.temperature = config.temperature.value_or(temperature);
  sampling.top_p = config.top_p.value_or(static_cast<float>(defaults.top_p.value_or(kDefaultTopP)));
  sampling.top_k = config.top_k.value_or(defaults.top_k.value_or(kDefaultTopK));
  sampling.min_p = config.min_p.value_or(static_cast<float>(defaults.min_p.value_or(0.0)));
  return sampling;
}

Result<StopRules> resolve_stops(const GenerationConfig& config, const std::vector<std::int32_t>& eos_ids,
                                const std::vector<std::string>& template_stop_words, const Tokenizer& tokenizer) {
  StopRules rules;
  const auto add_word = [&](const std::string& word) {
    const std::optional<std::int32_t> id = tokenizer.token_id(word);
    if (id && tokenizer.is_special(*id)) add_once(rules.ids, *id);
    // With special tokens shown, or where one was not parsed as such, the text can stop the answer as well.
    add_once(rules.strings, word);
  };
  if (!config.ignore_eos) {
    for (const std::int32_t id : eos_ids) add_once(rules.ids, id);
    for (const std::string& word : template_stop_words) {
      if (!word.empty()) add_word(word);
    }
  }
  for (const std::int32_t id : config.stop_ids) add_once(rules.ids, id);
  for (const std::string& word : config.stop) {
    if (word.empty()) return invalid_argument("a stop string is empty");
    LANNER_RETURN_IF_ERROR(check_utf8(word, "a stop string"));
    add_word(word);
  }
  return rules;
}

Result<std::vector<std::vector<std::int32_t>>> resolve_bad_words(const std::vector<std::string>& words,
                                                                 const Tokenizer& tokenizer) {
  std::vector<std::vector<std::int32_t>> sequences;
  for (const std::string& word : words) {
    if (word.empty()) return invalid_argument("a bad word is empty");
    LANNER_RETURN_IF_ERROR(check_utf8(word, "a bad word"));
    for (const std::string& spelling : {word, " " + word}) {
      LANNER_ASSIGN_OR_RETURN(auto ids, tokenizer.encode(spelling, {.add_special_tokens = false}));
      if (!ids.empty()) add_once(sequences, std::move(ids));
    }
  }
  return sequences;
}

}  // namespace lanner
