#pragma once
// The safetensors container: eight bytes of header length, a JSON header, then the tensors' bytes.
//
// A file is accepted only when its header accounts for every byte after it, once: shapes multiply to the extents,
// extents follow one another from 0 to the end of the file (Trail of Bits' audit of the format, 2023, shows
// what lesser readers let pass).
//
// Format: https://huggingface.co/docs/safetensors

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "model/stored_tensor.h"

namespace lanner::model {

/// All tensors of one file, in the order of its header.
Result<std::vector<StoredTensor>> parse_safetensors(std::span<const std::byte> file,
                                                    const std::shared_ptr<const void>& owner, std::string_view path);

}  // namespace lanner::model
