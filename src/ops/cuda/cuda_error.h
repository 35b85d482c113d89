#pragma once
// What happens when the CUDA runtime says no.
//
// It is a Status (cuda_status) wherever the program serves: memory that does not suffice, a device in another's hands,
// a fault of a kernel. Measurements, which have nobody else to keep alive, end with the error's name
// (LANNER_CUDA_CHECK).

#include <cuda_runtime_api.h>

#include "core/check.h"
#include "lanner/status.h"

namespace lanner::ops::cuda {

/// ok, or kResourceExhausted for memory and kInternal for the rest: "what: out of memory (cudaErrorMemoryAllocation)".
Status cuda_status(cudaError_t error, const char* what);

/// Ends the process with file, line and the error's name and meaning.
[[noreturn]] void cuda_failed(const char* file, int line, const char* call, cudaError_t error);

}  // namespace lanner::ops::cuda

/// For measurements.
#define LANNER_CUDA_CHECK(call)                                                                                   \
  do {                                                                                                            \
    const cudaError_t lanner_error_ = (call);                                                                     \
    if (lanner_error_ != cudaSuccess) ::lanner::ops::cuda::cuda_failed(__FILE__, __LINE__, #call, lanner_error_); \
  } while (false)
