#pragma once
// The host's side of a step, on the device: one transfer for a batch, one for each list of wanted rows.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "lanner/status.h"
#include "ops/backend.h"
#include "ops/batch.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/kernels.h"

namespace lanner::ops::cuda {

/// A list of the host and its copy on the device. Two pinned buffers take turns, so that the next list can be written
/// while this one is on its way.
class MirroredBuffer {
 public:
  /// Makes room for `bytes`. The device's place changes when it grows.
  Status reserve(std::int64_t bytes);
  /// What that takes of the device's memory.
  static std::int64_t device_bytes(std::int64_t bytes);
  /// Room for `bytes`, to be filled at once. The device's place changes when it grows.
  Result<std::byte*> open(std::int64_t bytes);
  /// Puts the copy of the first `bytes` on the stream.
  cudaError_t send(std::int64_t bytes, cudaStream_t stream);
  const std::byte* device() const { return device_.data(); }

 private:
  struct Side {
    PinnedBuffer memory;
    DeviceEvent copied;
  };
  Side sides_[2];
  int turn_ = 0;  // the side that open() gave out last
  DeviceBuffer device_;
};

/// How a step lies on the device: in as many places as a graph has that is to be replayed with it, of which the last
/// ones may be empty.
struct StepPlaces {
  std::int32_t rows = 0;         // at least the batch's; more only where every slice has one row
  std::int32_t max_context = 0;  // at least the batch's
};

class StepUpload {
 public:
  Status reserve(const StepRoom& room);
  static std::int64_t reserve_bytes(const StepRoom& room);
  /// kResourceExhausted where the lists need more memory than there is. Steps of one row a slice with the same places
  /// lie in the same memory, as long as device() is the same.
  Result<DeviceBatch> batch(const Batch& batch, const StepPlaces& places, cudaStream_t stream);
  const std::byte* device() const { return batch_.device(); }
  /// A copy of `rows` on the device, good until the next call but one.
  Result<const std::int32_t*> rows(std::span<const std::int32_t> rows, cudaStream_t stream);

 private:
  MirroredBuffer batch_;
  MirroredBuffer rows_[2];
  int turn_ = 0;
};

/// first_position + rows of the longest slice.
std::int32_t longest_context(const Batch& batch);

}  // namespace lanner::ops::cuda
