#include "core/aligned_buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <utility>

#include "core/check.h"

namespace lanner {

Result<AlignedBuffer> AlignedBuffer::allocate(std::int64_t bytes, std::string_view what) {
  LANNER_CHECK(bytes >= 0);
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  void* address = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    return resource_exhausted(
        fmt::format("not enough memory for {}: {:.1f} MiB", what, static_cast<double>(bytes) / (1 << 20)));
  }
  ::madvise(address, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);  // a hint: fewer TLB misses
  buffer.data_ = static_cast<std::byte*>(address);
  buffer.bytes_ = bytes;
  return buffer;
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  if (this != &other) {
    reset();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void AlignedBuffer::reset() {
  if (data_ != nullptr) ::munmap(data_, static_cast<std::size_t>(bytes_));
  data_ = nullptr;
  bytes_ = 0;
}

}  // namespace lanner
