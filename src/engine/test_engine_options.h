#pragma once
// For tests: the engine's options for the device on which they run (ops/test_device.h).

#include "lanner/options.h"
#include "ops/test_device.h"

namespace lanner {

inline EngineOptions test_engine_options() {
  EngineOptions options;
  options.device = is_cuda(test_device()) ? Device::kCuda : Device::kCpu;
  options.deterministic = test_device() != TestDevice::kCuda;
  return options;
}

}  // namespace lanner
