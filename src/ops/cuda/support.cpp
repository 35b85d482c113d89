// What this machine has of CUDA, and its start, which takes some tenths of a second.

#include <fmt/format.h>

#include <system_error>
#include <thread>

#include "ops/backend.h"
#include "ops/cuda/cublas_lt.h"
#include "ops/cuda/cuda_backend.h"

namespace lanner::ops {

bool cuda_is_built() { return true; }

CudaSupport cuda_support() {
  CudaSupport support;
  support.built = true;
  int version = 0;
  if (cudaRuntimeGetVersion(&version) == cudaSuccess) {
    support.runtime = fmt::format("{}.{}", version / 1000, version % 1000 / 10);
  }
  if (cudaDriverGetVersion(&version) == cudaSuccess && version > 0) {
    support.driver = fmt::format("{}.{}", version / 1000, version % 1000 / 10);
  }
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    const bool no_driver = support.driver.empty();
    support.problem = no_driver ? "no CUDA driver is installed" : cudaGetErrorString(error);
    return support;
  }
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, index) != cudaSuccess) continue;
    support.devices.push_back({.name = properties.name,
                               .capability = fmt::format("{}.{}", properties.major, properties.minor),
                               .memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem),
                               .multiprocessors = properties.multiProcessorCount,
                               .usable = properties.major * 10 + properties.minor >= cuda::kLeastCapability});
  }
  if (count == 0) support.problem = "the CUDA driver finds no device";
  return support;
}

std::int64_t cuda_free_bytes(int device) {
  std::size_t free = 0;
  std::size_t total = 0;
  if (cudaSetDevice(device) == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess) {
    return static_cast<std::int64_t>(free);
  }
  static_cast<void>(cudaGetLastError());
  return 0;
}

void warm_up_cuda(int device) {
  int count = 0;
  const bool there = cudaGetDeviceCount(&count) == cudaSuccess && count > device;
  static_cast<void>(cudaGetLastError());
  if (!there) return;
  std::thread library;
  try {
    library = std::thread([] { static_cast<void>(cuda::CublasLt::find()); });
  } catch (const std::system_error&) {
    library = {};  // it is opened later, then
  }
  if (cudaSetDevice(device) == cudaSuccess) static_cast<void>(cudaFree(nullptr));  // makes the context
  static_cast<void>(cudaGetLastError());
  if (library.joinable()) library.join();
}

}  // namespace lanner::ops
