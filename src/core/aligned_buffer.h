#pragma once
// Memory that kernels read: zeroed, aligned, owned by one object.

#include <cstddef>
#include <cstdint>
#include <span>

#include "lanner/status.h"

namespace lanner {

/// Pages taken straight from the operating system: aligned to 4 KiB, zero, and resident only once touched,
/// so that a large reservation costs nothing until it fills. Move only.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  /// kResourceExhausted when the system refuses. `what` names the purpose in that error.
  static Result<AlignedBuffer> allocate(std::int64_t bytes, std::string_view what);

  ~AlignedBuffer() { reset(); }
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }

  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data_);
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_);
  }

 private:
  void reset();
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

}  // namespace lanner
