#pragma once
// The architectures that can be read: one file beside this one and one line here for each.

#include <array>
#include <string_view>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "model/json_reader.h"

namespace lanner::model::arch {

/// Fills a spec in from the configuration. read_decoder_spec() checks the result against limits and tensors; this
/// only has to check what it computes with, and to refuse features of the family that are not implemented.
using ReadSpec = Result<DecoderSpec> (*)(const Checkpoint& checkpoint, const JsonFields& config);

Result<DecoderSpec> read_llama(const Checkpoint& checkpoint, const JsonFields& config);

struct Architecture {
  std::string_view name;        // as in config.json's architectures
  std::string_view model_type;  // for a config.json without architectures
  ReadSpec read;
};

inline constexpr std::array<Architecture, 1> kArchitectures{{{"LlamaForCausalLM", "llama", read_llama}}};

}  // namespace lanner::model::arch
