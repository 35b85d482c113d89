#pragma once
// A file mapped read-only into memory.
//
// The bytes stay valid as long as the object lives; keep it in a shared_ptr beside whatever points into it.
// Reading is safe from any thread. A file that another process truncates while it is mapped raises SIGBUS on
// access: checkpoints must be replaced by rename, as every writer of this project does.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "lanner/status.h"

namespace lanner {

class MappedFile {
 public:
  /// Fails with kNotFound, kIo, or kInvalidArgument (a folder, a device). An empty file maps to an empty span.
  static Result<std::shared_ptr<const MappedFile>> open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, const std::byte* data, std::size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  const std::byte* data_;
  std::size_t size_;
};

/// The whole file as a string; kInvalidArgument when it is larger than max_bytes.
Result<std::string> read_file(const std::string& path, std::int64_t max_bytes);

/// Writes beside `path` and renames, so that a reader sees the old content or the new one and never a part.
Status write_file_atomically(const std::string& path, std::string_view content);

}  // namespace lanner
