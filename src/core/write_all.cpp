#include "core/write_all.h"

#include <unistd.h>

#include <cerrno>

namespace lanner {
namespace {

/// `write` takes the rest, and gives how much of it was written.
template <typename Write>
bool until_written(std::span<const std::byte> bytes, const Write& write) {
  while (!bytes.empty()) {
    const ssize_t count = write(bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) errno = ENOSPC;
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return true;
}

}  // namespace

bool write_all(int descriptor, std::span<const std::byte> bytes) {
  return until_written(bytes,
                       [&](std::span<const std::byte> rest) { return ::write(descriptor, rest.data(), rest.size()); });
}

bool write_all_at(int descriptor, std::span<const std::byte> bytes, off_t place) {
  return until_written(bytes, [&](std::span<const std::byte> rest) {
    const auto done = static_cast<off_t>(bytes.size() - rest.size());
    return ::pwrite(descriptor, rest.data(), rest.size(), place + done);
  });
}

}  // namespace lanner
