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
#include <string>

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

/// Rotary embedding from rope_parameters (Transformers 5), or rope_theta and rope_scaling (before).
Result<RopeSpec> read_rope(const JsonFields& config, std::int64_t head_dim, std::int64_t max_position);

/// hidden_act.
Result<Activation> read_activation(const JsonFields& config);

}  // namespace lanner::model
