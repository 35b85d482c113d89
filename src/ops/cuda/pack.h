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
  CudaWeight(const DeviceWeight& view, std::shared_ptr<const DeviceBuffer> data, DeviceBuffer scales,
             std::shared_ptr<const DeviceBuffer> copy)
      : view_(view), data_(std::move(data)), scales_(std::move(scales)), copy_(std::move(copy)) {}
  std::int64_t rows() const override { return view_.rows; }
  std::int64_t cols() const override { return view_.cols; }
  WeightFormat format() const override { return view_.format; }
  std::int64_t bytes() const override { return view_.rows * view_.stride + scales_.bytes(); }
  std::int64_t copy_bytes() const { return view_.copy == nullptr ? 0 : view_.rows * view_.copy_stride; }
  const DeviceWeight& view() const { return view_; }

 private:
  DeviceWeight view_;
  std::shared_ptr<const DeviceBuffer> data_;
  DeviceBuffer scales_;
  std::shared_ptr<const DeviceBuffer> copy_;
};

/// What the last dense weight left for those that are packed next: see WeightSource::rows_behind. They take it if they
/// have its format and stride.
struct WeightRoom {
  std::shared_ptr<const DeviceBuffer> memory;
  std::int64_t used = 0;  // bytes
  WeightFormat format = WeightFormat::kF32;
  std::int64_t stride = 0;
};

struct PackOptions {
  std::optional<DType> dense{};  // kF16 or kBF16: what dense weights are converted to
  bool panels = false;           // int4 weights lie in panels, where they can
  bool copies = false;           // quantized weights also in fp16, while there is memory
};

/// Where weights are packed.
struct Packer {
  const KernelContext& context;
  Staging& staging;  // on the context's stream
  WeightRoom room;
  WeightRoom copy_room;
};

/// Quantized weights keep their codes; Arithmetic::kExact makes all weights fp32. kUnsupported for numbers that the
/// type cannot hold, kResourceExhausted for want of device memory.
Result<std::shared_ptr<const PackedWeight>> pack_weight(const WeightSource& source, Arithmetic arithmetic,
                                                        const PackOptions& options, Packer& packer);

}  // namespace lanner::ops::cuda
