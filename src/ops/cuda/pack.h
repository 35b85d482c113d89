#pragma once
// From WeightSource to the layouts of kernels.h, on the device.

#include <cstdint>
#include <memory>
#include <optional>

#include "core/dtype.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/staging.h"

namespace lanner::ops::cuda {

class CudaWeight final : public PackedWeight {
 public:
  /// `data` may be shared with other weights.
  CudaWeight(const DeviceWeight& view, std::shared_ptr<const DeviceBuffer> data, DeviceBuffer scales)
      : view_(view), data_(std::move(data)), scales_(std::move(scales)) {}
  std::int64_t rows() const override { return view_.rows; }
  std::int64_t cols() const override { return view_.cols; }
  WeightFormat format() const override { return view_.format; }
  std::int64_t bytes() const override { return view_.rows * view_.stride + scales_.bytes(); }
  const DeviceWeight& view() const { return view_; }

 private:
  DeviceWeight view_;
  std::shared_ptr<const DeviceBuffer> data_;
  DeviceBuffer scales_;
};

/// What the last dense weight left for those that are packed next: see WeightSource::rows_behind. They take it if they
/// have its format and stride.
struct WeightRoom {
  std::shared_ptr<const DeviceBuffer> memory;
  std::int64_t used = 0;  // bytes
  WeightFormat format = WeightFormat::kF32;
  std::int64_t stride = 0;
};

/// Dense weights are kept as they are, or converted to `dense` (kF16, kBF16), quantized ones keep their codes;
/// Arithmetic::kExact makes all of them fp32. kUnsupported for numbers that the type cannot hold, kResourceExhausted
/// for want of device memory.
Result<std::shared_ptr<const PackedWeight>> pack_weight(WeightSource source, Arithmetic arithmetic,
                                                        std::optional<DType> dense, Staging& staging, WeightRoom& room);

}  // namespace lanner::ops::cuda
