#include "ops/cuda/staging.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "ops/cuda/cuda_error.h"

namespace lanner::ops::cuda {

Result<std::unique_ptr<Staging>> Staging::create(ThreadPool& pool, cudaStream_t stream) {
  std::unique_ptr<Staging> staging(new Staging(pool, stream));
  for (Buffer& buffer : staging->buffers_) {
    LANNER_ASSIGN_OR_RETURN(buffer.memory, PinnedBuffer::allocate(kBufferBytes, "buffers for uploads"));
  }
  return staging;
}

Staging::Buffer& Staging::next_buffer() {
  Buffer& buffer = buffers_[turn_];
  turn_ = 1 - turn_;
  buffer.copied.wait();
  return buffer;
}

void Staging::send(Buffer& buffer, std::int64_t bytes, std::byte* to) {
  LANNER_CUDA_CHECK(
      cudaMemcpyAsync(to, buffer.memory.data(), static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream_));
  buffer.copied.record(stream_);
}

void Staging::copy_rows(std::int64_t rows, std::int64_t row_bytes, const FillRow& fill, std::byte* to) {
  if (rows == 0 || row_bytes == 0) return;
  if (row_bytes > kBufferBytes) {
    for (std::int64_t row = 0; row < rows; ++row) copy_long_row(row, row_bytes, fill, to + row * row_bytes);
    return;
  }
  const std::int64_t at_once = kBufferBytes / row_bytes;
  for (std::int64_t first = 0; first < rows; first += at_once) {
    const std::int64_t count = std::min(at_once, rows - first);
    Buffer& buffer = next_buffer();
    pool_.run([&](ThreadPool::Worker& worker) {
      const auto [begin, end] = worker.share(count);
      for (std::int64_t row = begin; row < end; ++row) fill(first + row, buffer.memory.data() + row * row_bytes);
    });
    send(buffer, count * row_bytes, to + first * row_bytes);
  }
}

void Staging::copy_long_row(std::int64_t row, std::int64_t row_bytes, const FillRow& fill, std::byte* to) {
  std::vector<std::byte> whole(static_cast<std::size_t>(row_bytes));
  fill(row, whole.data());
  copy(whole.data(), row_bytes, to);
}

void Staging::copy(const void* from, std::int64_t bytes, std::byte* to) {
  constexpr std::int64_t kPieceBytes = 1 << 16;  // for the threads to share
  const auto* source = static_cast<const std::byte*>(from);
  const std::int64_t whole = bytes / kPieceBytes;
  copy_rows(
      whole, kPieceBytes,
      [&](std::int64_t piece, std::byte* out) { std::memcpy(out, source + piece * kPieceBytes, kPieceBytes); }, to);
  const std::int64_t rest = bytes - whole * kPieceBytes;
  copy_rows(
      rest > 0 ? 1 : 0, rest,
      [&](std::int64_t, std::byte* out) {
        std::memcpy(out, source + whole * kPieceBytes, static_cast<std::size_t>(rest));
      },
      to + whole * kPieceBytes);
}

}  // namespace lanner::ops::cuda
