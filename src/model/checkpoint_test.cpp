// open_checkpoint() on folders and files on disk.

#include "model/checkpoint.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "model/file_builders.h"

namespace lanner::model {
namespace {

constexpr const char* kTensor = R"({"t":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},
                                    "i":{"dtype":"I64","shape":[1,1],"data_offsets":[8,16]}})";

void write_model(const TemporaryFolder& folder) {
  folder.write("config.json", R"({"hidden_size": 2})");
  folder.write("model.safetensors", safetensors_file(kTensor, 16));
}

TEST(FolderCheckpoint, ReadsTensors) {
  const TemporaryFolder folder;
  write_model(folder);
  const auto checkpoint = open_checkpoint(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const Checkpoint& model = **checkpoint;
  EXPECT_EQ(model.kind(), CheckpointKind::kFolder);
  EXPECT_EQ(model.config()["hidden_size"], 2);
  EXPECT_TRUE(model.generation_config().empty());
  EXPECT_EQ(model.tensor_bytes(), 16);
  const auto matrix = model.matrix("t", 2, 2);
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ(matrix->format, ops::WeightFormat::kBF16);
  EXPECT_NE(matrix->owner, nullptr);
  EXPECT_EQ(model.matrix("t", 4, 1).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(model.matrix("t", 1, 4).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(model.vector("t", 4).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(model.matrix("u", 2, 2).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(model.matrix("i", 1, 1).status().code(), StatusCode::kUnsupported);
}

TEST(FolderCheckpoint, MatricesOutliveTheCheckpoint) {
  const TemporaryFolder folder;
  write_model(folder);
  auto checkpoint = open_checkpoint(folder.path());
  ASSERT_TRUE(checkpoint.ok());
  const auto matrix = (*checkpoint)->matrix("t", 2, 2);
  checkpoint = not_found("gone");
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ(matrix->dense[7], std::byte{7});  // ASan and the kernel would object to an unmapped file
}

TEST(FolderCheckpoint, ReadsTemplatesAndSpecialTokens) {
  const TemporaryFolder folder;
  write_model(folder);
  folder.write("tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "special": true},
      "pad_token": null, "chat_template": [{"name": "tool_use", "template": "T"},
                                           {"name": "default", "template": "D"}]})");
  folder.write("special_tokens_map.json", R"({"bos_token": "other", "unk_token": {"content": "<unk>"}})");
  auto checkpoint = open_checkpoint(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ((*checkpoint)->special_tokens().bos, "<s>");
  EXPECT_EQ((*checkpoint)->special_tokens().eos, "</s>");
  EXPECT_EQ((*checkpoint)->special_tokens().unk, "<unk>");
  EXPECT_EQ((*checkpoint)->special_tokens().pad, "");
  EXPECT_EQ((*checkpoint)->chat_template(), "D");
  folder.write("chat_template.jinja", "J");
  EXPECT_EQ((*open_checkpoint(folder.path()))->chat_template(), "J");
  folder.write("tokenizer_config.json", R"({"chat_template": "S"})");
  EXPECT_EQ((*open_checkpoint(folder.path()))->chat_template(), "J");
  std::filesystem::remove(std::filesystem::path(folder.path()) / "chat_template.jinja");
  EXPECT_EQ((*open_checkpoint(folder.path()))->chat_template(), "S");
}

TEST(FolderCheckpoint, SaysWhichTokenizerIsMissing) {
  const TemporaryFolder folder;
  write_model(folder);
  const auto checkpoint = open_checkpoint(folder.path());
  ASSERT_TRUE(checkpoint.ok());
  Status status = (*checkpoint)->tokenizer().status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_EQ(status.message(), folder.path() + ": tokenizer.json is not there");
  folder.write("tokenizer.model", "x");
  status = (*checkpoint)->tokenizer().status();
  EXPECT_NE(status.message().find("tokenizer.model"), std::string::npos);
}

TEST(FolderCheckpoint, RefusesBrokenFiles) {
  const std::pair<const char*, const char*> cases[] = {
      {"config.json", "[]"},
      {"config.json", "{"},
      {"config.json", R"({"a": 1, "a": 2})"},
      {"generation_config.json", "[]"},
      {"tokenizer_config.json", R"({"chat_template": 1})"},
      {"tokenizer_config.json", R"({"chat_template": [{"name": "default"}]})"},
      {"special_tokens_map.json", "x"},
      {"model.safetensors", "x"},
      {"model.safetensors.index.json", "{}"}};
  for (const auto& [name, content] : cases) {
    const TemporaryFolder folder;
    write_model(folder);
    folder.write(name, content);
    const Status status = open_checkpoint(folder.path()).status();
    EXPECT_EQ(status.code(), StatusCode::kCorrupt) << name << " " << content;
    EXPECT_EQ(status.message().find(folder.path() + "/" + name), 0U) << status.message();
  }
}

TEST(OpenCheckpoint, SaysWhatAPathIs) {
  const TemporaryFolder folder;
  EXPECT_EQ(open_checkpoint(folder.path() + "/none").status().code(), StatusCode::kNotFound);
  EXPECT_NE(open_checkpoint(folder.path()).status().message().find("config.json"), std::string::npos);
  folder.write("text", "hello");
  EXPECT_EQ(open_checkpoint(folder.path() + "/text").status().code(), StatusCode::kInvalidArgument);
  folder.write("empty", "");
  EXPECT_EQ(open_checkpoint(folder.path() + "/empty").status().code(), StatusCode::kInvalidArgument);
  folder.write("m.gguf", small_llama_gguf({"a", "b"}).file());
  EXPECT_NE(open_checkpoint(folder.path()).status().message().find("m.gguf"), std::string::npos);
  const auto gguf = open_checkpoint(folder.path() + "/m.gguf");
  ASSERT_TRUE(gguf.ok()) << gguf.status().message();
  EXPECT_EQ((*gguf)->kind(), CheckpointKind::kGguf);
}

}  // namespace
}  // namespace lanner::model
