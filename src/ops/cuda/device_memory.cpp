#include "ops/cuda/device_memory.h"

#include <fmt/format.h>

#include <atomic>
#include <limits>

#include "core/check.h"
#include "ops/cuda/cuda_error.h"
#include "ops/refuse_memory.h"

namespace lanner::ops {
namespace {

std::atomic<std::int64_t> allowed_allocations = std::numeric_limits<std::int64_t>::max();

}  // namespace

void refuse_cuda_memory(std::optional<std::int64_t> after) {
  allowed_allocations = after.value_or(std::numeric_limits<std::int64_t>::max());
}

namespace cuda {
namespace {

double mebibytes(std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

Status refused(const char* what) { return resource_exhausted(fmt::format("{}: no memory, as a test has it", what)); }

}  // namespace

bool is_refused() { return allowed_allocations.fetch_sub(1, std::memory_order_relaxed) <= 0; }

Result<DeviceBuffer> DeviceBuffer::allocate(std::int64_t bytes, const char* what) {
  LANNER_CHECK(bytes >= 0);
  DeviceBuffer buffer;
  if (bytes == 0) return buffer;
  if (is_refused()) return refused(what);
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
  if (is_refused()) return refused(what);
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

Result<DeviceEvent> DeviceEvent::create() {
  cudaEvent_t event = nullptr;
  LANNER_RETURN_IF_ERROR(cuda_status(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "a CUDA event"));
  return DeviceEvent(event);
}

DeviceEvent::~DeviceEvent() {
  if (event_ != nullptr) static_cast<void>(cudaEventDestroy(event_));
}

cudaError_t DeviceEvent::record(cudaStream_t stream) { return cudaEventRecord(event_, stream); }

cudaError_t DeviceEvent::wait() const { return event_ == nullptr ? cudaSuccess : cudaEventSynchronize(event_); }

}  // namespace cuda
}  // namespace lanner::ops
