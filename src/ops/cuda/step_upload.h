#pragma once
// The host's side of a step, on the device: one transfer for a batch, one for each list of wanted rows.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "lanner/status.h"
#include "ops/batch.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/kernels.h"

namespace lanner::ops::cuda {

/// A pinned buffer and its copy on the device, which grow together.
class MirroredBuffer {
 public:
  /// Room for `bytes`, to be filled at once: what was sent before has been copied. The device's place changes when it
  /// grows.
  Result<std::byte*> open(std::int64_t bytes);
  /// Puts the copy of the first `bytes` on the stream.
  void send(std::int64_t bytes, cudaStream_t stream);
  const std::byte* device() const { return device_.data(); }

 private:
  PinnedBuffer host_;
  DeviceBuffer device_;
  DeviceEvent copied_;
};

class StepUpload {
 public:
  /// kResourceExhausted where the lists need more memory than there is.
  Result<DeviceBatch> batch(const Batch& batch, cudaStream_t stream);
  /// A copy of `rows` on the device, good until the next call but one.
  Result<const std::int32_t*> rows(std::span<const std::int32_t> rows, cudaStream_t stream);

 private:
  MirroredBuffer batch_;
  MirroredBuffer rows_[2];
  int turn_ = 0;
};

}  // namespace lanner::ops::cuda
