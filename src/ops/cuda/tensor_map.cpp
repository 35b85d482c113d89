#include "ops/cuda/tensor_map.h"

#include <array>

namespace lanner::ops::cuda {

Result<std::unique_ptr<TensorMaps>> TensorMaps::open() {
  constexpr unsigned kSinceVersion = 12000;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSinceVersion, cudaEnableDefault, &found);
#else
  const cudaError_t error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess || function == nullptr) {
    static_cast<void>(cudaGetLastError());
    return unsupported("the CUDA driver has no tensor maps");
  }
  return std::unique_ptr<TensorMaps>(new TensorMaps(reinterpret_cast<Encode>(function)));
}

cudaError_t TensorMaps::encode(const BoxedMatrix& matrix, CUtensorMap* map) const {
  const CUtensorMapDataType type =
      matrix.format == WeightFormat::kBF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  constexpr std::array<std::uint32_t, BoxedMatrix::kMostDimensions> kEveryElement = {1, 1, 1, 1, 1};
  const CUresult result =
      encode_(map, type, static_cast<std::uint32_t>(matrix.dimensions), const_cast<void*>(matrix.place), matrix.size,
              matrix.stride + 1, matrix.box, kEveryElement.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
              CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace lanner::ops::cuda
