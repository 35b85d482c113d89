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
  EXPECT_EQ(status.message(), folder.path() +
                                  ": has no tokenizer: neither tokenizer.json nor tokenizer.model nor "
                                  "qwen.tiktoken");
  folder.write("tokenizer.model", "x");
  status = (*checkpoint)->tokenizer().status();
  EXPECT_EQ(status.code(), StatusCode::kCorrupt);
  EXPECT_EQ(status.message().find(folder.path() + "/tokenizer.model: "), 0U) << status.message();
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

/// A folder whose matrix m is there as AWQ has it, 8 rows and 32 columns; n.weight is plain.
void write_awq_model(const TemporaryFolder& folder, const char* config) {
  folder.write("config.json", config);
  folder.write("model.safetensors",
               safetensors_file(R"({"m.qweight":{"dtype":"I32","shape":[32,1],"data_offsets":[0,128]},
      "m.qzeros":{"dtype":"I32","shape":[1,1],"data_offsets":[128,132]},
      "m.scales":{"dtype":"F16","shape":[1,8],"data_offsets":[132,148]},
      "m.bias":{"dtype":"F16","shape":[8],"data_offsets":[148,164]},
      "n.weight":{"dtype":"F16","shape":[2,2],"data_offsets":[164,172]}})",
                                172));
}

TEST(FolderCheckpoint, FindsQuantizedMatricesByTheirPlainNames) {
  const TemporaryFolder folder;
  write_awq_model(folder, R"({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}})");
  auto opened = open_checkpoint(folder.path());
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const Checkpoint& model = **opened;
  EXPECT_TRUE(model.has_tensor("m.weight"));
  EXPECT_TRUE(model.has_tensor("n.weight"));
  EXPECT_FALSE(model.has_tensor("o.weight"));
  EXPECT_TRUE(model.check_matrix("m.weight", 8, 32).ok());
  EXPECT_EQ(model.check_matrix("m.weight", 32, 8).code(), StatusCode::kCorrupt);
  EXPECT_EQ(model.check_matrix("o.weight", 8, 32).code(), StatusCode::kNotFound);
  EXPECT_EQ(model.matrix("m.weight", 8, 32)->format, ops::WeightFormat::kInt4);
  EXPECT_EQ(model.matrix("n.weight", 2, 2)->format, ops::WeightFormat::kF16);
  EXPECT_TRUE(model.vector("m.bias", 8).ok());
  EXPECT_EQ(model.tensor_bytes(), 172);
}

TEST(FolderCheckpoint, TakesAModelFormatWhereConfigHasNone) {
  const TemporaryFolder folder;
  write_awq_model(folder, "{}");
  auto opened = open_checkpoint(folder.path());
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ((*opened)->matrix("m.weight", 8, 32).status().code(), StatusCode::kUnsupported);
  EXPECT_TRUE((*opened)->matrix("n.weight", 2, 2).ok());
  opened = open_checkpoint(folder.path(), {.format = ModelFormat::kAwq});
  ASSERT_TRUE(opened.ok());
  EXPECT_TRUE((*opened)->matrix("m.weight", 8, 32).ok());
  folder.write("quant_config.json", R"({"w_bit": 4, "q_group_size": 16})");
  opened = open_checkpoint(folder.path(), {.format = ModelFormat::kAwq});
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ((*opened)->matrix("m.weight", 8, 32).status().code(), StatusCode::kCorrupt);  // groups of 32
  folder.write("quant_config.json", R"({"w_bit": 3})");
  EXPECT_EQ(open_checkpoint(folder.path(), {.format = ModelFormat::kAwq}).status().message(),
            folder.path() + "/quant_config.json: w_bit: 3 bits; AWQ with 4 and GPTQ with 4 or 8 can be read");
  folder.write("config.json", R"({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}})");
  EXPECT_EQ(open_checkpoint(folder.path(), {.format = ModelFormat::kGptq}).status().code(),
            StatusCode::kInvalidArgument);
  folder.write("m.gguf", small_llama_gguf({"a", "b"}).file());
  EXPECT_EQ(open_checkpoint(folder.path() + "/m.gguf", {.format = ModelFormat::kAwq}).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(OpenCheckpoint, KnowsModelFormats) {
  for (const char* plain : {"", "hf", "llama"}) EXPECT_EQ(*model_format(plain), ModelFormat::kPlain);
  EXPECT_EQ(*model_format("awq"), ModelFormat::kAwq);
  EXPECT_EQ(*model_format("gptq"), ModelFormat::kGptq);
  for (const char* other : {"fp8", "mxfp4", "AWQ", "\n"}) {
    EXPECT_EQ(model_format(other).status().code(), StatusCode::kUnsupported) << other;
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
