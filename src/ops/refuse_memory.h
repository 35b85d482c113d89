#pragma once
// For tests: a CUDA device without memory.

#include <cstdint>
#include <optional>

namespace lanner::ops {

/// Of the allocations that are made from now on (memory of the device and of the host for it, recorded steps) the first
/// `after` are made as ever and all others fail as if there were no memory. Nothing: none fails. Without effect in
/// builds without CUDA.
void refuse_cuda_memory(std::optional<std::int64_t> after);

}  // namespace lanner::ops
