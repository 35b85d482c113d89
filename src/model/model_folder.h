#pragma once
// The files of a Hugging Face model folder, and the tensors in them.

#include <string>
#include <string_view>

#include "lanner/status.h"
#include "model/json_reader.h"
#include "model/stored_tensor.h"

namespace lanner::model {

/// The path of `name` in a model folder. kCorrupt for a name with '/' or '..', or a link that leaves the folder
/// for anywhere but the blobs of the Hugging Face cache that holds it; kNotFound when there is no such file.
Result<std::string> model_file(const std::string& folder, std::string_view name);

/// The object in a JSON file of a model folder that describes the model or its tokens. kNotFound as model_file().
Result<Json> read_folder_object(const std::string& folder, std::string_view name);
/// The same, and an empty object when there is no such file.
Result<Json> read_optional_object(const std::string& folder, std::string_view name);

/// The tensors of a model folder: those of model.safetensors, or of the shards that model.safetensors.index.json
/// names; where there are neither, of pytorch_model.bin or the shards of pytorch_model.bin.index.json.
Result<TensorMap> open_model_tensors(const std::string& folder);

}  // namespace lanner::model
