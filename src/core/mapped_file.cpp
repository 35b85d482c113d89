#include "core/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/write_all.h"

namespace lanner {
namespace {

Status errno_status(const std::string& path, const char* action) {
  const int error = errno;
  const StatusCode code = error == ENOENT || error == ENOTDIR ? StatusCode::kNotFound : StatusCode::kIo;
  return {code, fmt::format("{}: cannot {}: {}", path, action, std::strerror(error))};
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

/// Opens a regular file and returns its size through `size`.
Result<int> open_regular(const std::string& path, std::size_t& size) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return errno_status(path, "open");
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return errno_status(path, "read the size");
  if (S_ISDIR(info.st_mode)) return invalid_argument(fmt::format("{}: is a folder, not a file", path));
  if (!S_ISREG(info.st_mode)) return invalid_argument(fmt::format("{}: is not a regular file", path));
  size = static_cast<std::size_t>(info.st_size);
  return fd.release();
}

}  // namespace

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const std::string& path) {
  std::size_t size = 0;
  LANNER_ASSIGN_OR_RETURN(const int raw_fd, open_regular(path, size));
  const FileDescriptor fd(raw_fd);
  const std::byte* data = nullptr;
  if (size > 0) {
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
    if (address == MAP_FAILED) return errno_status(path, "map into memory");
    data = static_cast<const std::byte*>(address);
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(path, data, size));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

Result<std::string> read_file(const std::string& path, std::int64_t max_bytes) {
  LANNER_ASSIGN_OR_RETURN(auto file, MappedFile::open(path));
  const auto bytes = file->bytes();
  if (static_cast<std::int64_t>(bytes.size()) > max_bytes) {
    return invalid_argument(fmt::format("{}: {} bytes, more than the {} allowed", path, bytes.size(), max_bytes));
  }
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Status write_file_atomically(const std::string& path, std::string_view content) {
  const std::string temporary = fmt::format("{}.part-{}", path, ::getpid());
  FileDescriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (fd.get() < 0) return errno_status(temporary, "create");
  if (!write_all(fd.get(), std::as_bytes(std::span(content))) || ::fsync(fd.get()) != 0 || ::close(fd.release()) != 0 ||
      ::rename(temporary.c_str(), path.c_str()) != 0) {
    Status failure = errno_status(path, "write");
    ::unlink(temporary.c_str());
    return failure;
  }
  return {};
}

}  // namespace lanner
