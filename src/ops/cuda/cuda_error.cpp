#include "ops/cuda/cuda_error.h"

#include <fmt/format.h>

#include <string>

namespace lanner::ops::cuda {

Status cuda_status(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  static_cast<void>(cudaGetLastError());  // an error that was reported must not be found again after a launch
  std::string message = fmt::format("{}: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error));
  if (error == cudaErrorMemoryAllocation) return resource_exhausted(std::move(message));
  return internal_error(std::move(message));
}

void cuda_failed(const char* file, int line, const char* call, cudaError_t error) {
  const std::string what = fmt::format("{}: {} ({})", call, cudaGetErrorString(error), cudaGetErrorName(error));
  check_failed(file, line, what.c_str());
}

}  // namespace lanner::ops::cuda
