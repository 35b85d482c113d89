#pragma once
// A lock between processes: flock() on a file, as the hubs' own Python clients take it.

#include <atomic>
#include <filesystem>
#include <functional>
#include <utility>

#include "lanner/status.h"

namespace lanner::net {

/// Holds the lock as long as it lives; the system drops it, too, when the process dies. The file stays.
class FileLock {
 public:
  /// Waits for the lock, and calls `on_wait` once when it has to. On a file system without locks it is granted at once:
  /// what lies under it is checked by its checksum anyway.
  static Result<FileLock> take(const std::filesystem::path& path, const std::atomic<bool>* cancelled,
                               const std::function<void()>& on_wait);

  FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileLock& operator=(FileLock&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~FileLock();

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

}  // namespace lanner::net
