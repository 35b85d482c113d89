#include "ops/cuda/device_memory.h"

#include <fmt/format.h>

#include "core/check.h"
#include "ops/cuda/cuda_error.h"

namespace lanner::ops::cuda {
namespace {

double mebibytes(std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

Result<DeviceBuffer> DeviceBuffer::allocate(std::int64_t bytes, const char* what) {
  LANNER_CHECK(bytes >= 0);
  DeviceBuffer buffer;
  if (bytes == 0) return buffer;
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<std::size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    std::size_t free = 0;
    std::size_t total = 0;
    static_cast<void>(cudaMemGetInfo(&free, &total));
    return resource_exhausted(fmt::format("{}: {:.1f} MiB of device memory are needed and {:.1f} MiB are free", what,
                                          mebibytes(static_cast<std::size_t>(bytes)), mebibytes(free)));
  }
  LANNER_RETURN_IF_ERROR(cuda_status(error, what));
  buffer.data_ = static_cast<std::byte*>(data);
  buffer.bytes_ = bytes;
  return buffer;
}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  if (this != &other) {
    reset();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void DeviceBuffer::reset() {
  // It waits for the kernels that may still read the memory. An error here is an earlier one, which is reported there.
  if (data_ != nullptr) static_cast<void>(cudaFree(data_));
  data_ = nullptr;
  bytes_ = 0;
}

Result<PinnedBuffer> PinnedBuffer::allocate(std::int64_t bytes, const char* what) {
  LANNER_CHECK(bytes >= 0);
  PinnedBuffer buffer;
  if (bytes == 0) return buffer;
  void* data = nullptr;
  LANNER_RETURN_IF_ERROR(
      cuda_status(cudaHostAlloc(&data, static_cast<std::size_t>(bytes), cudaHostAllocDefault), what));
  buffer.data_ = static_cast<std::byte*>(data);
  buffer.bytes_ = bytes;
  return buffer;
}

PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  if (this != &other) {
    reset();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void PinnedBuffer::reset() {
  if (data_ != nullptr) static_cast<void>(cudaFreeHost(data_));
  data_ = nullptr;
  bytes_ = 0;
}

Result<Stream> Stream::create() {
  cudaStream_t stream = nullptr;
  LANNER_RETURN_IF_ERROR(cuda_status(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a CUDA stream"));
  return Stream(stream);
}

Stream::~Stream() {
  if (stream_ != nullptr) static_cast<void>(cudaStreamDestroy(stream_));
}

DeviceEvent::DeviceEvent() { LANNER_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }

DeviceEvent::~DeviceEvent() { static_cast<void>(cudaEventDestroy(event_)); }

void DeviceEvent::record(cudaStream_t stream) { LANNER_CUDA_CHECK(cudaEventRecord(event_, stream)); }

void DeviceEvent::wait() const { LANNER_CUDA_CHECK(cudaEventSynchronize(event_)); }

}  // namespace lanner::ops::cuda
