#pragma once
// A Hugging Face model folder as a Checkpoint.

#include <memory>
#include <string>

#include "lanner/status.h"
#include "model/checkpoint.h"

namespace lanner::model {

Result<std::shared_ptr<const Checkpoint>> open_folder_checkpoint(const std::string& folder, ModelFormat format);

/// The same without its tensors: configuration, tokenizer and templates.
Result<std::shared_ptr<const Checkpoint>> open_folder_texts(const std::string& folder);

}  // namespace lanner::model
