#pragma once
// Memory of the device, memory of the host that the device reads without the driver's help (pinned), streams and
// events.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "lanner/status.h"

namespace lanner::ops::cuda {

/// Counts an allocation, or a graph, that is about to be made. True: a test wants it to fail (ops/refuse_memory.h).
bool is_refused();

/// Device memory, aligned to 256 bytes; not cleared.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  /// kResourceExhausted, with the numbers, where the device has no more. 0 bytes: a null buffer.
  static Result<DeviceBuffer> allocate(std::int64_t bytes, const char* what);
  ~DeviceBuffer() { reset(); }
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void reset();
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

/// Pinned host memory; not cleared.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  static Result<PinnedBuffer> allocate(std::int64_t bytes, const char* what);
  ~PinnedBuffer() { reset(); }
  PinnedBuffer(PinnedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  void reset();
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

/// A stream of its own, which does not wait for the device's default one.
class Stream {
 public:
  static Result<Stream> create();
  ~Stream();
  Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  Stream& operator=(Stream&&) = delete;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  explicit Stream(cudaStream_t stream) : stream_(stream) {}
  cudaStream_t stream_ = nullptr;
};

/// A point on a stream that the host can wait for.
class DeviceEvent {
 public:
  /// Of nothing: nobody waits for it, and it cannot be recorded.
  DeviceEvent() = default;
  static Result<DeviceEvent> create();
  ~DeviceEvent();
  DeviceEvent(DeviceEvent&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  DeviceEvent& operator=(DeviceEvent&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  DeviceEvent(const DeviceEvent&) = delete;
  DeviceEvent& operator=(const DeviceEvent&) = delete;

  bool is_null() const { return event_ == nullptr; }
  cudaError_t record(cudaStream_t stream);
  /// Until what was on the stream at the last record() is done; at once where there was none. The error is that of the
  /// device, if it has failed by then.
  cudaError_t wait() const;

 private:
  explicit DeviceEvent(cudaEvent_t event) : event_(event) {}
  cudaEvent_t event_ = nullptr;
};

}  // namespace lanner::ops::cuda
