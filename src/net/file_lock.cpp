#include "net/file_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

namespace lanner::net {
namespace {

constexpr auto kPollEvery = std::chrono::milliseconds(100);

/// Whether the path still names the open file: the Python clients may delete it when they let go.
bool is_current(int descriptor, const std::filesystem::path& path) {
  struct stat open_file{};
  struct stat named_file{};
  return ::fstat(descriptor, &open_file) == 0 && ::stat(path.c_str(), &named_file) == 0 &&
         open_file.st_ino == named_file.st_ino && open_file.st_dev == named_file.st_dev;
}

}  // namespace

FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<FileLock> FileLock::take(const std::filesystem::path& path, const std::atomic<bool>* cancelled,
                                const std::function<void()>& on_wait) {
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  if (error) return io_error(fmt::format("{}: {}", path.parent_path().string(), error.message()));
  bool told = false;
  while (true) {
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
    if (descriptor < 0) {
      return io_error(fmt::format("{}: {}", path.string(), std::generic_category().message(errno)));
    }
    FileLock lock(descriptor);
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
      if (is_current(descriptor, path)) return lock;
      continue;
    }
    if (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP) return lock;
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return io_error(fmt::format("{}: {}", path.string(), std::generic_category().message(errno)));
    }
    if (!told && on_wait) on_wait();
    told = true;
    if (cancelled != nullptr && cancelled->load(std::memory_order_relaxed)) {
      return Status(StatusCode::kCancelled, "stopped on request");
    }
    std::this_thread::sleep_for(kPollEvery);
  }
}

}  // namespace lanner::net
