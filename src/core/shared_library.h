#pragma once
// Libraries that are opened while the program runs, because a machine may do without them: cuBLASLt, NCCL.
//
// A library stays open until the process ends: its own threads and exit handlers may outlive whoever opened it.

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lanner/status.h"

namespace lanner {

class SharedLibrary {
 public:
  /// Opens the first of `names` that is found: in each of `folders`, in order, then where the system looks. kNotFound
  /// with the names and the last complaint of the system's loader.
  static Result<SharedLibrary> open(std::span<const std::string> names, std::span<const std::filesystem::path> folders);

  /// The file, as it was found.
  const std::string& path() const { return path_; }
  /// Null where the library has no such symbol.
  void* symbol(const char* name) const;
  template <typename Function>
  Function function(const char* name) const {
    return reinterpret_cast<Function>(symbol(name));
  }

 private:
  SharedLibrary(void* handle, std::string path) : handle_(handle), path_(std::move(path)) {}
  void* handle_ = nullptr;
  std::string path_;
};

/// Where NVIDIA's libraries may lie besides the system's own places, in the order in which to look: the folders of
/// LANNER_CUDA_LIBRARIES (separated by colons), the program's own, CUDA_HOME and CUDA_PATH, /usr/local/cuda, and the
/// nvidia/*/lib folders that PyPI's wheels (PyTorch's, say) put below a site-packages: of VIRTUAL_ENV, of the python3
/// on PATH, of the user and of the system. Only folders that exist.
std::vector<std::filesystem::path> cuda_library_folders();

}  // namespace lanner
