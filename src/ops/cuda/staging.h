#pragma once
// From host memory to the device through two pinned buffers: while one is on its way, threads fill the other.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "core/thread_pool.h"
#include "lanner/status.h"
#include "ops/cuda/device_memory.h"

namespace lanner::ops::cuda {

class Staging {
 public:
  static constexpr std::int64_t kBufferBytes = std::int64_t{16} << 20;

  /// Borrows the pool and the stream, on which all copies are put.
  static Result<std::unique_ptr<Staging>> create(ThreadPool& pool, cudaStream_t stream);

  /// Writes row `row` in the device's form to `out`, row_bytes long; called by several threads.
  using FillRow = std::function<void(std::int64_t row, std::byte* out)>;
  /// Fills `rows` rows and copies them to `to`, without gaps. Returns when all have been put on the stream: what is
  /// put there later finds them.
  void copy_rows(std::int64_t rows, std::int64_t row_bytes, const FillRow& fill, std::byte* to);
  /// `bytes` bytes as they are.
  void copy(const void* from, std::int64_t bytes, std::byte* to);

 private:
  struct Buffer {
    PinnedBuffer memory;
    DeviceEvent copied;
  };
  Staging(ThreadPool& pool, cudaStream_t stream) : pool_(pool), stream_(stream) {}
  void copy_long_row(std::int64_t row, std::int64_t row_bytes, const FillRow& fill, std::byte* to);
  Buffer& next_buffer();
  void send(Buffer& buffer, std::int64_t bytes, std::byte* to);

  ThreadPool& pool_;
  cudaStream_t stream_;
  Buffer buffers_[2];
  int turn_ = 0;
};

}  // namespace lanner::ops::cuda
