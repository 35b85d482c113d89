#include "model/model_folder.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "model/file_builders.h"
#include "model/torch_builders.h"

namespace lanner::model {
namespace {

/// The header of a safetensors file with one fp32 number.
std::string one_tensor(std::string_view name) {
  return fmt::format(R"({{"{}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}})", name);
}

void write_shards(const TemporaryFolder& folder, std::string_view weight_map) {
  folder.write("model.safetensors.index.json", fmt::format(R"({{"metadata":{{}},"weight_map":{}}})", weight_map));
  folder.write("one.safetensors", safetensors_file(one_tensor("t"), 4));
  folder.write("two.safetensors", safetensors_file(one_tensor("u"), 4));
}

TEST(ModelFolder, ReadsShards) {
  const TemporaryFolder folder;
  write_shards(folder, R"({"t":"one.safetensors","u":"two.safetensors"})");
  const auto tensors = open_model_tensors(folder.path());
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  EXPECT_EQ(tensors->size(), 2U);
  EXPECT_NE(tensors->at("u").owner, nullptr);
}

TEST(ModelFolder, RefusesIndexes) {
  const TemporaryFolder folder;
  for (const char* map : {R"({"t":"../one.safetensors"})", R"({"t":"/etc/passwd"})", R"({"t":"a/one.safetensors"})",
                          R"({"t":""})", R"({"t":".."})", R"({"t":"two.safetensors"})", R"({"t":1})", R"({})", R"([])",
                          R"({"t":"one.safetensors","t":"one.safetensors"})"}) {
    write_shards(folder, map);
    EXPECT_EQ(open_model_tensors(folder.path()).status().code(), StatusCode::kCorrupt) << map;
  }
  write_shards(folder, R"({"t":"none.safetensors"})");
  EXPECT_EQ(open_model_tensors(folder.path()).status().code(), StatusCode::kNotFound);
}

TEST(ModelFolder, SaysWhatItLookedFor) {
  const TemporaryFolder folder;
  const std::string message = open_model_tensors(folder.path()).status().message();
  for (const char* name : {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "index.json"}) {
    EXPECT_NE(message.find(name), std::string::npos) << name;
  }
}

std::string bin_file(std::string_view name) {
  return torch_zip(pickled::dict(
                       {{std::string(name), pickled::tensor(pickled::storage("HalfStorage", "0", 2), 0, {2}, {1})}}),
                   {{"0", "abcd"}})
      .file();
}

TEST(ModelFolder, ReadsPyTorchFiles) {
  const TemporaryFolder folder;
  folder.write("pytorch_model.bin", bin_file("t"));
  auto tensors = open_model_tensors(folder.path());
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  EXPECT_EQ(tensors->at("t").dtype, "F16");
  folder.write("pytorch_model.bin.index.json", R"({"weight_map":{"u":"a.bin","v":"b.bin"}})");
  folder.write("a.bin", bin_file("u"));
  folder.write("b.bin", bin_file("v"));
  tensors = open_model_tensors(folder.path());
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  EXPECT_EQ(tensors->size(), 2U);
  EXPECT_NE(tensors->at("v").owner, nullptr);
  folder.write("b.bin", bin_file("w"));
  EXPECT_EQ(open_model_tensors(folder.path()).status().code(), StatusCode::kCorrupt);
}

TEST(ModelFolder, PrefersSafetensors) {
  const TemporaryFolder folder;
  folder.write("pytorch_model.bin", "not even a zip");
  folder.write("pytorch_model.bin.index.json", "not JSON");
  folder.write("model.safetensors", safetensors_file(one_tensor("t"), 4));
  const auto tensors = open_model_tensors(folder.path());
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  EXPECT_EQ(tensors->at("t").dtype, "F32");
  folder.write("model.safetensors", "x");  // one that is broken does not give way
  EXPECT_EQ(open_model_tensors(folder.path()).status().code(), StatusCode::kCorrupt);
}

TEST(ModelFolder, FollowsLinksOnlyIntoItselfAndTheCache) {
  namespace fs = std::filesystem;
  const TemporaryFolder root;
  const std::string file = safetensors_file(one_tensor("t"), 4);
  const fs::path base = root.path();
  const fs::path snapshot = base / "models--a" / "snapshots" / "1234";
  root.write("models--a/blobs/abcd", file);
  root.write("models--b/blobs/abcd", file);
  root.write("plain/inside.bin", file);
  fs::create_directories(snapshot);
  const auto try_link = [&](const fs::path& link, const fs::path& target) {
    fs::remove(link);
    fs::create_symlink(target, link);
    return open_model_tensors(link.parent_path().string()).status().code();
  };
  EXPECT_EQ(try_link(snapshot / "model.safetensors", "../../blobs/abcd"), StatusCode::kOk);
  EXPECT_EQ(try_link(snapshot / "model.safetensors", "../../../models--b/blobs/abcd"), StatusCode::kCorrupt);
  EXPECT_EQ(try_link(snapshot / "model.safetensors", base / "plain/inside.bin"), StatusCode::kCorrupt);
  // Models of one cache may share contents: then a blob is a link itself.
  root.write("blobs/ab/abcdef", file);
  fs::create_symlink("../../blobs/ab/abcdef", base / "models--a/blobs/shared");
  EXPECT_EQ(try_link(snapshot / "model.safetensors", "../../blobs/shared"), StatusCode::kOk);
  fs::create_directories(base / "other" / "snapshots" / "1234");
  EXPECT_EQ(try_link(base / "other" / "snapshots" / "1234" / "model.safetensors", base / "blobs/ab/abcdef"),
            StatusCode::kCorrupt);
  EXPECT_EQ(try_link(base / "plain" / "model.safetensors", "inside.bin"), StatusCode::kOk);
  EXPECT_EQ(try_link(base / "plain" / "model.safetensors", "../models--a/blobs/abcd"), StatusCode::kCorrupt);
  EXPECT_EQ(try_link(base / "plain" / "model.safetensors", "model.safetensors"), StatusCode::kIo);  // a loop
}

}  // namespace
}  // namespace lanner::model
