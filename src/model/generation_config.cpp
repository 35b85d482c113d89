#include "model/generation_config.h"

#include <algorithm>
#include <string>

#include "model/decoder_config.h"
#include "model/decoder_spec.h"
#include "model/json_reader.h"

namespace lanner::model {
namespace {

constexpr std::size_t kMaxEosIds = 1024;

/// eos_token_id: a number or a list of them.
Result<std::vector<std::int32_t>> read_eos_ids(const JsonFields& fields) {
  constexpr std::string_view kKey = "eos_token_id";
  std::vector<std::int32_t> ids;
  const Json* value = fields.find(kKey);
  if (value == nullptr) return ids;
  const Json list = value->is_array() ? *value : Json::array({*value});
  if (list.size() > kMaxEosIds) return fields.wrong(kKey, "lists too many tokens");
  for (const Json& entry : list) {
    const Json one{{kKey, entry}};
    const JsonFields single(one, fields.where());
    LANNER_ASSIGN_OR_RETURN(const std::int64_t id, single.integer(kKey, 0, kMaxVocab - 1));
    const auto token = static_cast<std::int32_t>(id);
    if (std::ranges::find(ids, token) == ids.end()) ids.push_back(token);
  }
  return ids;
}

}  // namespace

Result<GenerationDefaults> read_generation_defaults(const Checkpoint& checkpoint) {
  const bool gguf = checkpoint.kind() == CheckpointKind::kGguf;
  const JsonFields config = config_fields(checkpoint);
  const JsonFields fields(checkpoint.generation_config(),
                          gguf ? config.where() : checkpoint.path() + "/generation_config.json");
  GenerationDefaults defaults;
  LANNER_ASSIGN_OR_RETURN(defaults.eos_ids, read_eos_ids(fields));
  if (defaults.eos_ids.empty()) {
    LANNER_ASSIGN_OR_RETURN(defaults.eos_ids, read_eos_ids(config));
  }
  if (fields.has("do_sample")) {
    LANNER_ASSIGN_OR_RETURN(const bool sample, fields.boolean_or("do_sample", false));
    defaults.do_sample = sample;
  }
  LANNER_ASSIGN_OR_RETURN(defaults.temperature, fields.optional_number("temperature", 0.0, 100.0));
  LANNER_ASSIGN_OR_RETURN(defaults.top_p, fields.optional_number("top_p", 0.0, 1.0));
  LANNER_ASSIGN_OR_RETURN(defaults.min_p, fields.optional_number("min_p", 0.0, 1.0));
  LANNER_ASSIGN_OR_RETURN(defaults.repetition_penalty, fields.optional_number("repetition_penalty", 1e-3, 100.0));
  if (fields.has("top_k")) {
    LANNER_ASSIGN_OR_RETURN(const std::int64_t top_k, fields.integer("top_k", 0, kMaxVocab));
    defaults.top_k = static_cast<int>(top_k);
  }
  return defaults;
}

}  // namespace lanner::model
