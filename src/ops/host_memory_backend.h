#pragma once
// For tests: a device that takes pointers to host memory, so that one body of tests runs on every device. Each
// operation copies what it reads to the device, runs there, and copies back what it wrote.

#include <memory>

#include "ops/backend.h"

namespace lanner::ops::testing {

/// Weights and vectors are those of `inner`.
std::unique_ptr<Backend> on_host_memory(std::unique_ptr<Backend> inner);

}  // namespace lanner::ops::testing
