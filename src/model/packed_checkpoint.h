#pragma once
// A folder that `lanner convert` made, as a Checkpoint: model.lanner, beside the configuration, tokenizer and templates
// of the model that it was made from (of a GGUF file: a GGUF file without tensors, and the configuration in
// model.lanner, because tensors are a part of what tells it).
//
// What loading does to rows (slices of fused tensors, rotary pairs) was done before packing. So its matrices bear names
// of their own, and packed_spec() brings a spec to them; norms keep theirs.

#include <memory>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"

namespace lanner::model {

/// The name of the file that holds a GGUF's metadata.
inline constexpr std::string_view kMetadataFileName = "metadata.gguf";

/// kInvalidArgument when a model format is asked for, which is a matter of what is converted.
Result<std::shared_ptr<const Checkpoint>> open_packed_checkpoint(const std::string& folder, ModelFormat format);

/// The spec over plain matrices with the names of model.lanner.
DecoderSpec packed_spec(const DecoderSpec& spec);

/// The projections of a spec in the order in which a decoder packs them, between embedding and head.
std::vector<const ProjectionSpec*> projections_of(const DecoderSpec& spec);

}  // namespace lanner::model
