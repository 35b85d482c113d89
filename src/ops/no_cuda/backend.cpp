// In the place of ops/cuda where the build has no CUDA.

#include "ops/backend.h"
#include "ops/refuse_memory.h"

namespace lanner::ops {

Result<std::unique_ptr<Backend>> make_cuda_backend(const CudaBackendOptions&) {
  return unsupported("this program was built without CUDA");
}

Result<CudaLimits> measure_cuda_limits(int) { return unsupported("this program was built without CUDA"); }

void refuse_cuda_memory(std::optional<std::int64_t> /*after*/) {}

bool cuda_is_built() { return false; }

std::int64_t cuda_free_bytes(int /*device*/) { return 0; }

void warm_up_cuda(int /*device*/) {}

CudaSupport cuda_support() { return {.built = false, .problem = "built without CUDA"}; }

}  // namespace lanner::ops
