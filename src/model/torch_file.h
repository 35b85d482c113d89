#pragma once
// PyTorch's .bin files: a zip archive with a pickle that describes tensors, and an entry with the elements of each
// storage. The pickle is read, never run (pickle.h); tensors are views into the file.
//
// Read are files as torch.save has written them since PyTorch 1.6. A tensor must lie in row-major order; several may
// share a storage.

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "model/stored_tensor.h"

namespace lanner::model {

/// All tensors of one file, in the order of its dict.
Result<std::vector<StoredTensor>> parse_torch_file(std::span<const std::byte> file,
                                                   const std::shared_ptr<const void>& owner, std::string_view path);

}  // namespace lanner::model
