#include "cli/sampling_flags.h"

#include <CLI/CLI.hpp>

namespace lanner::cli {

void add_sampling_flags(CLI::App& verb, SamplingFlags& flags) {
  constexpr const char* kModels = "the model's, else ";
  std::vector<CLI::Option*> options;
  const auto add = [&](const std::string& name, auto& value, const std::string& text, const std::string& otherwise) {
    CLI::Option* option = verb.add_option(name, value, text);
    option->default_str(otherwise);
    options.push_back(option);
  };
  add("--temperature", flags.temperature, "Spread of the choice; 0 is greedy", std::string(kModels) + "0.8");
  add("--top-p", flags.top_p, "Choose among the best tokens that have this share together",
      std::string(kModels) + "0.8");
  add("--top-k", flags.top_k, "Choose among this many best tokens; 0 is all", std::string(kModels) + "40");
  add("--min-p", flags.min_p, "Leave out tokens below this share of the best one", std::string(kModels) + "0");
  add("--repetition-penalty", flags.repetition_penalty, "Above 1: avoid tokens that were there already",
      std::string(kModels) + "1");
  add("--presence-penalty", flags.presence_penalty, "Taken off the logit of a token that was generated before", "0");
  add("--frequency-penalty", flags.frequency_penalty, "The same for each time it was", "0");
  add("--seed", flags.seed, "Repeat the same choices", "random");
  add("--max-new-tokens", flags.max_new_tokens, "Longest answer", std::to_string(flags.max_new_tokens));
  CLI::Option* sample =
      verb.add_flag("--do-sample", flags.do_sample, "Sample even where the model's makers suggest greedy");
  CLI::Option* greedy = verb.add_flag("--greedy", flags.greedy, "Always the best token");
  CLI::Option* stop = verb.add_option("--stop", flags.stop, "End the answer before this text; may be repeated");
  stop->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->allow_extra_args(false);
  for (CLI::Option* option : {sample, greedy, stop}) options.push_back(option);
  for (CLI::Option* option : options) option->group("Sampling");
}

Result<GenerationConfig> generation_config(const SamplingFlags& flags) {
  if (flags.greedy && flags.do_sample) return invalid_argument("--greedy and --do-sample exclude each other");
  if (flags.max_new_tokens < 1) return invalid_argument("--max-new-tokens must be at least 1");
  GenerationConfig config;
  config.max_new_tokens = flags.max_new_tokens;
  if (flags.greedy) config.do_sample = false;
  if (flags.do_sample) config.do_sample = true;
  config.temperature = flags.temperature;
  config.top_p = flags.top_p;
  config.top_k = flags.top_k;
  config.min_p = flags.min_p;
  config.repetition_penalty = flags.repetition_penalty;
  config.presence_penalty = flags.presence_penalty;
  config.frequency_penalty = flags.frequency_penalty;
  config.seed = flags.seed;
  config.stop = flags.stop;
  return config;
}

}  // namespace lanner::cli
