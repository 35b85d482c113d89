#include "core/shared_library.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>

namespace lanner {
namespace {

namespace fs = std::filesystem;

/// An environment variable for the time of one test.
class Setting {
 public:
  Setting(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    EXPECT_EQ(::setenv(name, value.c_str(), 1), 0);
  }
  ~Setting() {
    if (before_.empty()) {
      ::unsetenv(name_);
    } else {
      ::setenv(name_, before_.c_str(), 1);
    }
  }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  const char* name_;
  std::string before_;
};

class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "lanner_libraries_XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::ptrdiff_t place_of(const std::vector<fs::path>& folders, const fs::path& folder) {
  return std::ranges::find(folders, folder) - folders.begin();
}

TEST(SharedLibrary, OpensWhatTheSystemKnowsAndFindsItsFunctions) {
  const std::array<std::string, 2> names = {"liblanner_has_none_such.so", "libm.so.6"};
  const auto library = SharedLibrary::open(names, {});
  ASSERT_TRUE(library.ok()) << library.status().message();
  EXPECT_EQ(library->path(), "libm.so.6");
  const auto cosine = library->function<double (*)(double)>("cos");
  ASSERT_NE(cosine, nullptr);
  EXPECT_EQ(cosine(0.0), 1.0);
  EXPECT_EQ(library->symbol("lanner_has_no_such_function"), nullptr);
}

TEST(SharedLibrary, AFolderComesBeforeTheSystemAndABrokenFileIsPassedOver) {
  const Folder folder;
  std::ofstream(folder.path() / "libm.so.6") << "not a library";
  const std::array<std::string, 1> names = {"libm.so.6"};
  const std::array<fs::path, 1> folders = {folder.path()};
  const auto library = SharedLibrary::open(names, folders);
  ASSERT_TRUE(library.ok());
  EXPECT_EQ(library->path(), "libm.so.6");
}

TEST(SharedLibrary, SaysWhatItLookedFor) {
  const std::array<std::string, 1> names = {"liblanner_has_none_such.so"};
  const auto library = SharedLibrary::open(names, {});
  ASSERT_FALSE(library.ok());
  EXPECT_EQ(library.status().code(), StatusCode::kNotFound);
  EXPECT_NE(library.status().message().find("liblanner_has_none_such.so"), std::string::npos);
  EXPECT_EQ(library.status().message().find('\n'), std::string::npos);
}

TEST(CudaLibraryFolders, OwnFoldersFirstThenWheelsOfTheEnvironmentThenOfThePythonOnPath) {
  const Folder folder;
  const fs::path own = folder.path() / "own";
  const fs::path venv = folder.path() / "venv/lib/python3.12/site-packages/nvidia/cu13/lib";
  const fs::path other = folder.path() / "other/lib/python3.11/site-packages/nvidia/cublas/lib";
  for (const fs::path& path : {own, venv, other, folder.path() / "other/bin"}) fs::create_directories(path);
  std::ofstream(folder.path() / "other/bin/python3") << "";
  const Setting libraries("LANNER_CUDA_LIBRARIES", (folder.path() / "missing").string() + "::" + own.string());
  const Setting environment("VIRTUAL_ENV", (folder.path() / "venv").string());
  const Setting search("PATH", (folder.path() / "other/bin").string() + ":/usr/bin");

  const std::vector<fs::path> folders = cuda_library_folders();
  EXPECT_EQ(place_of(folders, own), 0);
  EXPECT_LT(place_of(folders, own), place_of(folders, venv));
  EXPECT_LT(place_of(folders, venv), place_of(folders, other));
  EXPECT_LT(place_of(folders, other), static_cast<std::ptrdiff_t>(folders.size()));
  EXPECT_EQ(place_of(folders, folder.path() / "missing"), static_cast<std::ptrdiff_t>(folders.size()));
}

}  // namespace
}  // namespace lanner
