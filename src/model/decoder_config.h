#pragma once
// From a checkpoint's configuration to a checked DecoderSpec.
//
// read_decoder_spec() looks the architecture up, lets its file under arch/ fill in the numbers and tensor names, and
// then checks every number against the limits of decoder_spec.h and every tensor against its shape. When it
// succeeds, memory can be planned and allocated without a further doubt about the file. Fields that this build does
// not implement are refused by name, never passed over.
//
// To add an architecture: a file under arch/ and a line in arch/registry.h.

#include <cstdint>
#include <optional>
#include <string_view>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "model/json_reader.h"

namespace lanner::model {

/// kUnsupported for an architecture or a feature, kCorrupt for a value or a tensor, kNotFound for a missing tensor.
Result<DecoderSpec> read_decoder_spec(const Checkpoint& checkpoint);

/// The configuration, with errors that name the file and its own name of the field: config.json, or the GGUF.
JsonFields config_fields(const Checkpoint& checkpoint);

// For the files under arch/:

/// What a family's rope has where the configuration says nothing.
struct RopeDefaults {
  double theta = 10000.0;
  double rotary_share = 1.0;  // of a head
};

/// Rotary embedding from rope_parameters (Transformers 5), or rope_theta and rope_scaling (before).
Result<RopeSpec> read_rope(const JsonFields& config, std::int64_t head_dim, std::int64_t max_position,
                           const RopeDefaults& defaults = {});

/// The same from an object inside the configuration (absent: no scaling) whose fields win over the outer ones.
Result<RopeSpec> read_rope_object(const JsonFields& config, const std::optional<JsonFields>& rope,
                                  std::int64_t head_dim, std::int64_t max_position, const RopeDefaults& defaults);

/// The activation in this field.
Result<Activation> read_activation(const JsonFields& config, std::string_view key, std::string_view fallback);

}  // namespace lanner::model
