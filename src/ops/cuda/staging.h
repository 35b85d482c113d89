#pragma once
// From host memory to the device through pinned buffers: each thread has two, and fills one while the other is on its
// way.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/thread_pool.h"
#include "lanner/status.h"
#include "ops/cuda/device_memory.h"

namespace lanner::ops::cuda {

class Staging {
 public:
  static constexpr std::int64_t kBufferBytes = std::int64_t{1} << 20;

  /// Borrows the pool and the stream, on which all copies are put.
  static Result<std::unique_ptr<Staging>> create(ThreadPool& pool, int device, cudaStream_t stream);

  /// Writes row `row` in the device's form to `out`, row_bytes long; called by several threads.
  using FillRow = std::function<void(std::int64_t row, std::byte* out)>;
  /// Fills `rows` rows and copies them to `to`, without gaps. Returns when all have been put on the stream: what is
  /// put there later finds them.
  Status copy_rows(std::int64_t rows, std::int64_t row_bytes, const FillRow& fill, std::byte* to);
  /// `bytes` bytes as they are.
  Status copy(const void* from, std::int64_t bytes, std::byte* to);

 private:
  struct Buffer {
    std::byte* memory = nullptr;
    DeviceEvent copied;
  };
  /// Of one thread.
  struct Lane {
    Buffer buffers[2];
    int turn = 0;
  };
  Staging(ThreadPool& pool, int device, cudaStream_t stream) : pool_(pool), device_(device), stream_(stream) {}
  Status copy_long_row(std::int64_t row, std::int64_t row_bytes, const FillRow& fill, std::byte* to);
  /// Rows first..first + count - 1, which fit into a buffer.
  cudaError_t copy_piece(Lane& lane, std::int64_t first, std::int64_t count, std::int64_t row_bytes,
                         const FillRow& fill, std::byte* to);

  ThreadPool& pool_;
  int device_;
  cudaStream_t stream_;
  PinnedBuffer memory_;  // of all lanes
  std::vector<Lane> lanes_;
};

}  // namespace lanner::ops::cuda
