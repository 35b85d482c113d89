// What Pipeline::open makes of a model's name. That what is found can be run is for tests/net and tests/cli.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "lanner/pipeline.h"

namespace lanner {
namespace {

namespace fs = std::filesystem;

class OpenPipeline : public testing::Test {
 protected:
  OpenPipeline() : folder_(fs::temp_directory_path() / ("lanner_open_pipeline_" + std::to_string(::getpid()))) {
    ::setenv("HF_HUB_OFFLINE", "1", 1);
    ::setenv("HF_HUB_CACHE", folder_.c_str(), 1);
  }
  ~OpenPipeline() override {
    ::unsetenv("HF_HUB_OFFLINE");
    ::unsetenv("HF_HUB_CACHE");
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  static void write(const fs::path& path, const std::string& content) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << content;
  }

  const fs::path& folder() const { return folder_; }

 private:
  const fs::path folder_;
};

TEST_F(OpenPipeline, LooksIntoTheHubsCache) {
  const auto missing = Pipeline::open("org/tiny", {});
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(missing.status().message().starts_with("org/tiny: is neither a local path nor in the cache"));

  const std::string commit(40, 'c');
  const fs::path store = folder() / "models--org--tiny";
  write(store / "refs/main", commit);
  write(store / "snapshots" / commit / "tiny.gguf", "GGUF, as it says");
  const auto found = Pipeline::open("org/tiny", {});
  ASSERT_FALSE(found.ok());
  EXPECT_TRUE(found.status().message().starts_with((store / "snapshots" / commit / "tiny.gguf").string()))
      << found.status().message();
}

TEST_F(OpenPipeline, TakesAnotherRevisionAndFolder) {
  const std::string commit(40, 'd');
  const fs::path store = folder() / "elsewhere" / "models--org--tiny";
  write(store / "snapshots" / commit / "tiny.gguf", "GGUF, as it says");
  PipelineOptions options;
  options.revision = commit;
  options.download_dir = (folder() / "elsewhere").string();
  EXPECT_TRUE(Pipeline::open("org/tiny", options).status().message().starts_with(store.string()));
  options.revision = "../../main";
  EXPECT_EQ(Pipeline::open("org/tiny", options).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(OpenPipeline, ALocalPathWins) {
  write(folder() / "org" / "tiny", "GGUF, as it says");
  const fs::path before = fs::current_path();
  fs::current_path(folder());
  const auto opened = Pipeline::open("org/tiny", {});
  fs::current_path(before);
  EXPECT_TRUE(opened.status().message().starts_with("org/tiny: ")) << opened.status().message();
  EXPECT_EQ(opened.status().message().find("cache"), std::string::npos);
}

}  // namespace
}  // namespace lanner
