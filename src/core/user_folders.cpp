#include "core/user_folders.h"

#include <cstdlib>
#include <sstream>
#include <string>
#include <utility>

namespace lanner {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

fs::path user_folder(const char* name, const char* below_home) {
  if (fs::path folder = environment(name); folder.is_absolute()) return folder;
  const fs::path home = environment("HOME");
  return home.is_absolute() ? home / below_home : fs::path();
}

}  // namespace

fs::path user_cache_folder() { return user_folder("XDG_CACHE_HOME", ".cache"); }
fs::path user_state_folder() { return user_folder("XDG_STATE_HOME", ".local/state"); }
fs::path user_data_folder() { return user_folder("XDG_DATA_HOME", ".local/share"); }

std::vector<fs::path> shared_data_folders() {
  const std::string list = environment("XDG_DATA_DIRS");
  std::istringstream names(list.empty() ? "/usr/local/share:/usr/share" : list);
  std::vector<fs::path> folders;
  for (std::string name; std::getline(names, name, ':');) {
    if (fs::path folder = name; folder.is_absolute()) folders.push_back(std::move(folder));
  }
  return folders;
}

}  // namespace lanner
