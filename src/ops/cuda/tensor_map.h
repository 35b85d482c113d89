#pragma once
// Descriptions of matrices in device memory for the copies of Hopper (TMA). They are made by a function of the driver,
// which is looked up while the program runs: a build needs no driver.

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "lanner/status.h"
#include "ops/weight_source.h"

namespace lanner::ops::cuda {

/// A matrix of 16-bit elements in up to five dimensions, the innermost one first: columns, then what its rows are cut
/// into. A box of it is what one copy brings to shared memory, rows one behind the other, with 128-byte swizzling;
/// elements outside of the matrix are zeros there.
struct BoxedMatrix {
  static constexpr int kMostDimensions = 5;
  const void* place = nullptr;  // at a multiple of 16 bytes
  WeightFormat format = WeightFormat::kF16;
  int dimensions = 2;
  std::uint64_t size[kMostDimensions] = {};
  std::uint64_t stride[kMostDimensions] = {};  // bytes, multiples of 16; that of the columns is not looked at
  std::uint32_t box[kMostDimensions] = {};     // box[0]: 64 columns
};

class TensorMaps {
 public:
  /// kUnsupported where the driver has none.
  static Result<std::unique_ptr<TensorMaps>> open();
  cudaError_t encode(const BoxedMatrix& matrix, CUtensorMap* map) const;

 private:
  using Encode = decltype(&cuTensorMapEncodeTiled);
  explicit TensorMaps(Encode function) : encode_(function) {}
  Encode encode_;
};

}  // namespace lanner::ops::cuda
