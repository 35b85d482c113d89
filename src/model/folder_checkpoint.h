#pragma once
// A Hugging Face model folder as a Checkpoint.

#include <memory>
#include <string>

#include "lanner/status.h"
#include "model/checkpoint.h"

namespace lanner::model {

Result<std::shared_ptr<const Checkpoint>> open_folder_checkpoint(const std::string& folder, ModelFormat format);

}  // namespace lanner::model
