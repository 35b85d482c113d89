#pragma once
// The files of a Hugging Face model folder, and the tensors in them.

#include <string>
#include <string_view>

#include "lanner/status.h"
#include "model/stored_tensor.h"

namespace lanner::model {

/// The path of `name` in a model folder. kCorrupt for a name with '/' or '..', or a link that leaves the folder
/// for anywhere but the blobs of the Hugging Face cache that holds it; kNotFound when there is no such file.
Result<std::string> model_file(const std::string& folder, std::string_view name);

/// The tensors of a model folder: those of model.safetensors, or of the shards that model.safetensors.index.json
/// names; where there are neither, of pytorch_model.bin or the shards of pytorch_model.bin.index.json.
Result<TensorMap> open_model_tensors(const std::string& folder);

}  // namespace lanner::model
