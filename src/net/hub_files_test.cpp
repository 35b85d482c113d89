// Names: which model, which file, which may be used at all.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "net/hub.h"
#include "net/hub_cache.h"
#include "net/model_id.h"
#include "net/repository_files.h"

namespace lanner::net {
namespace {

std::vector<RepositoryFile> listing(const std::vector<std::string>& paths) {
  std::vector<RepositoryFile> files;
  for (const std::string& path : paths) files.push_back({path, 1, std::string(40, 'a')});
  return files;
}

/// The paths that are chosen, joined, or the failure.
std::string chosen(const std::vector<std::string>& paths, const std::string& model = "a/b") {
  const Result<FileChoice> choice = choose_files(listing(paths), *parse_model_id(model));
  if (!choice.ok()) return choice.status().message();
  std::string text;
  for (const RepositoryFile& file : choice->files) text += (text.empty() ? "" : " ") + file.path;
  return text;
}

TEST(ModelId, IsTwoPlainParts) {
  const auto id = parse_model_id("Qwen/Qwen2.5-0.5B-Instruct-GGUF:q4_k_m");
  ASSERT_TRUE(id);
  EXPECT_EQ(id->organization, "Qwen");
  EXPECT_EQ(id->name, "Qwen2.5-0.5B-Instruct-GGUF");
  EXPECT_EQ(id->selector, "q4_k_m");
  EXPECT_EQ(parse_model_id("a/b:Q4/x y.gguf")->selector, "Q4/x y.gguf");
  for (const char* text :
       {"",       "a",     "a/",   "/a",       "a/b/c", "./a",    "../a",  "a/..",  "a/.b",     "a/b.",    "-a/b",
        "a--c/b", "a/b c", "a/b:", "a/b:x\ny", "~/a",   "a\\b/c", "a/b?x", "a/b#x", "http://a", "a/%2e%2e"}) {
    EXPECT_FALSE(parse_model_id(text)) << text;
  }
  EXPECT_FALSE(parse_model_id("a/" + std::string(97, 'b')));
}

TEST(Revision, StaysInItsFolder) {
  for (const char* text : {"main", "v1.0", "refs/pr/3", "feature/x_y-z"}) EXPECT_TRUE(is_revision(text)) << text;
  for (const char* text : {"", "..", "a/../b", "/a", "a/", "a//b", ".git", "a/.b", "a b", "a\nb", "a?b", "a%2fb"}) {
    EXPECT_FALSE(is_revision(text)) << text;
  }
}

TEST(FileName, StaysInItsFolder) {
  for (const char* name : {"config.json", "Q4/a.gguf", "a b.txt", "..a", "a..b", "中文.json"}) {
    EXPECT_TRUE(check_file_name(name, "hub").ok()) << name;
  }
  for (const char* name : {"", "/etc/passwd", "..", "../a", "a/../../b", "a/..", "./a", "a/./b", "a//b", "a/", "a\\b",
                           "a\nb", "a\x7f", "C:\\x"}) {
    EXPECT_EQ(check_file_name(name, "hub").code(), StatusCode::kCorrupt) << name;
  }
  EXPECT_FALSE(check_file_name(std::string("a\0b", 3), "hub").ok());
  EXPECT_FALSE(check_file_name(std::string(256, 'a'), "hub").ok());
  EXPECT_FALSE(check_file_name(std::string(600, 'a') + "/" + std::string(600, 'b'), "hub").ok());
}

TEST(FileChoice, IsWhatAModelNeeds) {
  EXPECT_EQ(
      chosen({"README.md", "config.json", "modeling_x.py", "model.safetensors", "pytorch_model.bin", "tokenizer.json",
              "tokenization_x.py", "tokenizer.model", "chat_template.jinja", "qwen.tiktoken", "merges.txt",
              "original/config.json", "original/consolidated.00.pth", "tf_model.h5", ".gitattributes"}),
      "config.json tokenizer.json tokenizer.model chat_template.jinja qwen.tiktoken merges.txt model.safetensors");
  EXPECT_EQ(chosen({"config.json", "pytorch_model.bin"}), "config.json pytorch_model.bin");
  EXPECT_EQ(chosen({"model.safetensors"}), "a/b: has weights but no config.json");
  EXPECT_EQ(
      chosen({"config.json", "flax_model.msgpack"}),
      "a/b: holds no weights that can be read (safetensors, .bin or GGUF); its files: config.json, flax_model.msgpack");
}

TEST(FileChoice, TakesTheShardsOfTheIndex) {
  const auto files = listing({"config.json", "model.safetensors.index.json", "model.safetensors",
                              "consolidated.safetensors", "model-1.safetensors", "model-2.safetensors"});
  Result<FileChoice> choice = choose_files(files, *parse_model_id("a/b"));
  ASSERT_TRUE(choice.ok());
  EXPECT_EQ(choice->index, "model.safetensors.index.json");
  EXPECT_EQ(choice->files.back().path, choice->index);
  ASSERT_TRUE(
      add_shards(
          R"({"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}})",
          files, *choice)
          .ok());
  EXPECT_EQ(choice->files.size(), 4U);
  EXPECT_EQ(choice->files.back().path, "model-2.safetensors");
  for (const char* index :
       {R"({"weight_map": {"a": "../../x"}})", R"({"weight_map": {"a": "/etc/passwd"}})",
        R"({"weight_map": {"a": "folder/x"}})", R"({"weight_map": {"a": 1}})", R"({"weight_map": []})",
        R"({"weight_map": {"a": "absent.safetensors"}})", "[]", "{}", "x"}) {
    FileChoice copy = *choice;
    EXPECT_EQ(add_shards(index, files, copy).code(), StatusCode::kCorrupt) << index;
  }
}

TEST(FileChoice, IsOneGgufFile) {
  const std::vector<std::string> several{"README.md",   "x-Q4_0.gguf",       "x-Q4_K_M.gguf",
                                         "x.Q8_0.gguf", "mmproj-x-f16.gguf", "BF16/x-BF16.gguf"};
  EXPECT_EQ(chosen({"config.json", "only.gguf", "mmproj-f16.gguf"}), "only.gguf");
  EXPECT_EQ(chosen(several, "a/b:Q4_K_M"), "x-Q4_K_M.gguf");
  EXPECT_EQ(chosen(several, "a/b:q8_0"), "x.Q8_0.gguf");
  EXPECT_EQ(chosen(several, "a/b:x-Q4_0.gguf"), "x-Q4_0.gguf");
  EXPECT_EQ(chosen(several, "a/b:bf16"), "BF16/x-BF16.gguf");
  EXPECT_EQ(chosen(several, "a/b:mmproj-x-f16.gguf"), "mmproj-x-f16.gguf");
  EXPECT_EQ(chosen(several, "a/b:Q2_K"),
            "a/b: 'Q2_K' fits no GGUF file; choose one of: BF16/x-BF16.gguf, mmproj-x-f16.gguf, x-Q4_0.gguf, "
            "x-Q4_K_M.gguf, x.Q8_0.gguf");
  EXPECT_NE(chosen(several).find("say which, as in a/b:Q4_K_M"), std::string::npos) << chosen(several);
  EXPECT_EQ(chosen({"a-Q4_0.gguf", "b-Q4_0.gguf"}, "a/b:Q4_0"),
            "a/b: 'Q4_0' fits more than one GGUF file; choose one of: a-Q4_0.gguf, b-Q4_0.gguf");
  EXPECT_NE(chosen({"x-Q4_0-00001-of-00002.gguf", "x-Q4_0-00002-of-00002.gguf"}, "a/b:x-Q4_0-00001-of-00002.gguf")
                .find("split into parts"),
            std::string::npos);
  EXPECT_EQ(chosen({"config.json", "model.safetensors", "x-Q4_0.gguf"}), "config.json model.safetensors");
  EXPECT_EQ(chosen({"config.json", "model.safetensors", "x-Q4_0.gguf"}, "a/b:Q4_0"), "x-Q4_0.gguf");
}

TEST(ModelName, IsWhatTheUserCalledIt) {
  EXPECT_EQ(model_name("/c/models--org--my-model/snapshots/" + std::string(40, 'a')), "my-model");
  EXPECT_EQ(model_name("/c/models--org--my-model/snapshots/" + std::string(40, 'a') + "/"), "my-model");
  EXPECT_EQ(model_name("/c/models--org--x/snapshots/" + std::string(40, 'a') + "/x-Q4.gguf"), "x-Q4.gguf");
  EXPECT_EQ(model_name("/models/tiny/"), "tiny");
  EXPECT_EQ(model_name("tiny"), "tiny");
}

TEST(DownloadProgress, CountsWhatIsFetched) {
  EXPECT_DOUBLE_EQ((DownloadProgress{.done_bytes = 60, .total_bytes = 100, .start_bytes = 20}.share()), 0.5);
  EXPECT_DOUBLE_EQ((DownloadProgress{.done_bytes = 10, .total_bytes = 100, .start_bytes = 20}.share()), 0.0);
  EXPECT_DOUBLE_EQ(DownloadProgress{}.share(), 1.0);
}

}  // namespace
}  // namespace lanner::net
