#pragma once
// For tests: the device on which they run, as LANNER_TEST_DEVICE says. tests/isa_main.cpp ends the program with 77
// where there is no such device.

#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace lanner {

enum class TestDevice : std::uint8_t {
  kCpu,                // cpu, or nothing: as --deterministic does
  kCpuLate,            // cpu-late: for the engine's tests, a CPU that answers late (engine/late_backend.h)
  kCpuTiles,           // cpu-tiles: for the operations' tests, products of any number of rows in tiles of bf16
  kCuda,               // cuda: as fast as it goes
  kCudaDeterministic,  // cuda-deterministic: as --deterministic does
};

inline TestDevice test_device() {
  const char* value = std::getenv("LANNER_TEST_DEVICE");
  const std::string_view name = value == nullptr ? "" : value;
  if (name == "cpu-late") return TestDevice::kCpuLate;
  if (name == "cpu-tiles") return TestDevice::kCpuTiles;
  if (name == "cuda") return TestDevice::kCuda;
  if (name == "cuda-deterministic") return TestDevice::kCudaDeterministic;
  return TestDevice::kCpu;
}

inline bool is_cuda(TestDevice device) {
  return device == TestDevice::kCuda || device == TestDevice::kCudaDeterministic;
}

}  // namespace lanner
