#include "core/shared_library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace lanner {
namespace {

namespace fs = std::filesystem;

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<fs::path> split_paths(std::string_view list) {
  std::vector<fs::path> paths;
  while (!list.empty()) {
    const std::size_t end = std::min(list.find(':'), list.size());
    if (end > 0) paths.emplace_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return paths;
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    entries.push_back(it->path());
  }
  std::ranges::sort(entries);
  return entries;
}

/// `folder`/nvidia/*/lib, of one site-packages.
void add_wheels(const fs::path& folder, std::vector<fs::path>& found) {
  for (const fs::path& package : entries_of(folder / "nvidia")) found.push_back(package / "lib");
}

/// The site-packages of a Python that is installed below `prefix`.
void add_prefix(const fs::path& prefix, std::vector<fs::path>& found) {
  for (const fs::path& library : entries_of(prefix / "lib")) {
    if (!library.filename().string().starts_with("python")) continue;
    add_wheels(library / "site-packages", found);
    add_wheels(library / "dist-packages", found);
  }
}

}  // namespace

Result<SharedLibrary> SharedLibrary::open(std::span<const std::string> names, std::span<const fs::path> folders) {
  std::string complaint;
  const auto try_one = [&complaint](const std::string& path) -> void* {
    void* handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle != nullptr) return handle;
    const char* error = ::dlerror();
    complaint = error == nullptr ? "unknown error" : error;
    return nullptr;
  };
  for (const fs::path& folder : folders) {
    for (const std::string& name : names) {
      const fs::path path = folder / name;
      std::error_code error;
      if (!fs::exists(path, error)) continue;
      if (void* handle = try_one(path.string())) return SharedLibrary(handle, path.string());
    }
  }
  for (const std::string& name : names) {
    if (void* handle = try_one(name)) return SharedLibrary(handle, name);
  }
  return not_found(fmt::format("none of {} can be opened ({})", fmt::join(names, ", "), complaint));
}

void* SharedLibrary::symbol(const char* name) const { return ::dlsym(handle_, name); }

std::vector<fs::path> cuda_library_folders() {
  std::vector<fs::path> folders = split_paths(environment("LANNER_CUDA_LIBRARIES"));
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) folders.push_back(program.parent_path());
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const fs::path home = environment(name); !home.empty()) folders.push_back(home / "lib64");
  }
  folders.emplace_back("/usr/local/cuda/lib64");
  if (const fs::path home = environment("VIRTUAL_ENV"); !home.empty()) add_prefix(home, folders);
  for (const fs::path& folder : split_paths(environment("PATH"))) {
    if (fs::exists(folder / "python3", error)) add_prefix(folder.parent_path(), folders);
  }
  if (const fs::path home = environment("HOME"); !home.empty()) add_prefix(home / ".local", folders);
  add_prefix("/usr/local", folders);
  add_wheels("/usr/lib/python3/dist-packages", folders);
  std::erase_if(folders, [](const fs::path& folder) {
    std::error_code unreadable;
    return !fs::is_directory(folder, unreadable);
  });
  return folders;
}

}  // namespace lanner
