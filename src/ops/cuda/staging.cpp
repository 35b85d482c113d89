#include "ops/cuda/staging.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "ops/cuda/cuda_error.h"

namespace lanner::ops::cuda {

Result<std::unique_ptr<Staging>> Staging::create(ThreadPool& pool, int device, cudaStream_t stream) {
  std::unique_ptr<Staging> staging(new Staging(pool, device, stream));
  const auto lanes = static_cast<std::int64_t>(pool.size());
  LANNER_ASSIGN_OR_RETURN(staging->memory_, PinnedBuffer::allocate(lanes * 2 * kBufferBytes, "buffers for uploads"));
  staging->lanes_.resize(static_cast<std::size_t>(lanes));
  std::byte* memory = staging->memory_.data();
  for (Lane& lane : staging->lanes_) {
    for (Buffer& buffer : lane.buffers) {
      buffer.memory = memory;
      memory += kBufferBytes;
      LANNER_ASSIGN_OR_RETURN(buffer.copied, DeviceEvent::create());
    }
  }
  return staging;
}

cudaError_t Staging::copy_piece(Lane& lane, std::int64_t first, std::int64_t count, std::int64_t row_bytes,
                                const FillRow& fill, std::byte* to) {
  Buffer& buffer = lane.buffers[lane.turn];
  lane.turn = 1 - lane.turn;
  if (const cudaError_t error = buffer.copied.wait(); error != cudaSuccess) return error;
  for (std::int64_t row = 0; row < count; ++row) fill(first + row, buffer.memory + row * row_bytes);
  const cudaError_t error =
      cudaMemcpyAsync(to + first * row_bytes, buffer.memory, static_cast<std::size_t>(count * row_bytes),
                      cudaMemcpyHostToDevice, stream_);
  return error == cudaSuccess ? buffer.copied.record(stream_) : error;
}

Status Staging::copy_rows(std::int64_t rows, std::int64_t row_bytes, const FillRow& fill, std::byte* to) {
  if (rows == 0 || row_bytes == 0) return {};
  if (row_bytes > kBufferBytes) {
    for (std::int64_t row = 0; row < rows; ++row) {
      LANNER_RETURN_IF_ERROR(copy_long_row(row, row_bytes, fill, to + row * row_bytes));
    }
    return {};
  }
  const std::int64_t at_once = kBufferBytes / row_bytes;
  if (rows <= at_once) return cuda_status(copy_piece(lanes_.front(), 0, rows, row_bytes, fill, to), "an upload");
  std::atomic<std::int64_t> next = 0;
  std::atomic<cudaError_t> failure = cudaSuccess;
  pool_.run([&](ThreadPool::Worker& worker) {
    static_cast<void>(cudaSetDevice(device_));  // a matter of each thread
    Lane& lane = lanes_[static_cast<std::size_t>(worker.index())];
    while (failure == cudaSuccess) {
      const std::int64_t first = next.fetch_add(at_once, std::memory_order_relaxed);
      if (first >= rows) return;
      const cudaError_t error = copy_piece(lane, first, std::min(at_once, rows - first), row_bytes, fill, to);
      if (error != cudaSuccess) failure = error;
    }
  });
  return cuda_status(failure, "an upload");
}

Status Staging::copy_long_row(std::int64_t row, std::int64_t row_bytes, const FillRow& fill, std::byte* to) {
  std::vector<std::byte> whole(static_cast<std::size_t>(row_bytes));
  fill(row, whole.data());
  return copy(whole.data(), row_bytes, to);
}

Status Staging::copy(const void* from, std::int64_t bytes, std::byte* to) {
  constexpr std::int64_t kPieceBytes = 1 << 16;  // for the threads to share
  const auto* source = static_cast<const std::byte*>(from);
  const std::int64_t whole = bytes / kPieceBytes;
  LANNER_RETURN_IF_ERROR(copy_rows(
      whole, kPieceBytes,
      [&](std::int64_t piece, std::byte* out) { std::memcpy(out, source + piece * kPieceBytes, kPieceBytes); }, to));
  const std::int64_t rest = bytes - whole * kPieceBytes;
  return copy_rows(
      rest > 0 ? 1 : 0, rest,
      [&](std::int64_t, std::byte* out) {
        std::memcpy(out, source + whole * kPieceBytes, static_cast<std::size_t>(rest));
      },
      to + whole * kPieceBytes);
}

}  // namespace lanner::ops::cuda
