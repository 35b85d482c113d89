#pragma once
// A GGUF file as a Checkpoint.

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "lanner/status.h"
#include "model/checkpoint.h"

namespace lanner::model {

/// `file` stays valid as long as a copy of `owner` lives; the checkpoint and what it hands out keep one.
Result<std::shared_ptr<const Checkpoint>> make_gguf_checkpoint(std::span<const std::byte> file,
                                                               std::shared_ptr<const void> owner,
                                                               const std::string& path);

}  // namespace lanner::model
