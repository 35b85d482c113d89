// model.lanner by itself; tests/cli/test_convert.py holds a converted model against its source.

#include "model/packed_file.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "core/mapped_file.h"
#include "model/convert.h"
#include "model/decoder_config.h"
#include "model/file_builders.h"
#include "model/packed_checkpoint.h"

namespace lanner::model {
namespace {

/// Bytes at a multiple of 64, as in a mapping.
class AlignedCopy {
 public:
  explicit AlignedCopy(std::string_view bytes) : blocks_(bytes.size() / sizeof(Block) + 1), size_(bytes.size()) {
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(blocks_.data()));
  }
  std::span<const std::byte> bytes() const { return {reinterpret_cast<const std::byte*>(blocks_.data()), size_}; }

 private:
  struct alignas(64) Block {
    std::array<char, 64> bytes;
  };
  std::vector<Block> blocks_;
  std::size_t size_;
};

Status parse(std::string_view file) {
  const AlignedCopy copy(file);
  return parse_packed_file(copy.bytes(), nullptr, "x").status();
}

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 14695981039346656037U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  return hash;
}

/// A file with this table and 64 bytes of data, whose checksum is right.
std::string with_table(std::string_view table, std::uint32_t version = 2) {
  std::string file = "LANNERPK";
  append(file, version);
  append(file, std::uint32_t{16});
  append(file, std::uint64_t{128});
  append(file, static_cast<std::uint64_t>(table.size()));
  append(file, fnv1a(table));
  file.resize(128);
  return file += table;
}

std::string with_matrix(std::string_view entry) {
  return with_table(fmt::format(R"({{"tensors":[],"matrices":{{"m":{}}},"vectors":{{}}}})", entry));
}

std::string with_vectors(std::string_view entries) {
  return with_table(fmt::format(R"({{"tensors":[],"matrices":{{}},"vectors":{{{}}}}})", entries));
}

TEST(PackedFile, ComesBackAsItWasWritten) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/model.lanner";
  const std::string panels(300, 'p');
  const std::vector<std::int32_t> order{2, 0, 1};
  const std::vector<float> values{1.5F, -2.0F, 0.25F};
  {
    auto writer = PackedFileWriter::create(path);
    ASSERT_TRUE(writer.ok()) << writer.status().message();
    const ops::PackedImage image{.format = ops::WeightFormat::kInt4,
                                 .group = 32,
                                 .half_scales = true,
                                 .has_offsets = true,
                                 .zero_points = true,
                                 .bytes = as_bytes(panels)};
    ASSERT_TRUE((*writer)->add_matrix("m", 5, 3, image, order).ok());
    ASSERT_TRUE((*writer)->add_vector("v", values).ok());
    EXPECT_FALSE(parse_packed_file((*MappedFile::open(path))->bytes(), nullptr, path).ok()) << "not finished";
    const Json config{{"rope_scaling", {{"short_factor", std::vector<float>{1.1F}}}}, {"name", "\xff"}};
    ASSERT_TRUE((*writer)->finish({"a", "b"}, config).ok());
  }
  const auto mapped = MappedFile::open(path);
  ASSERT_TRUE(mapped.ok());
  const auto file = parse_packed_file((*mapped)->bytes(), *mapped, path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->tensors.size(), 2U);
  ASSERT_TRUE(file->config.has_value());
  EXPECT_EQ(file->config->at("rope_scaling").at("short_factor").at(0).get<float>(), 1.1F);
  const PackedMatrix& matrix = file->matrices.at("m");
  EXPECT_EQ(matrix.rows, 5);
  EXPECT_EQ(matrix.cols, 3);
  EXPECT_EQ(matrix.input_order, order);
  EXPECT_EQ(matrix.image->format, ops::WeightFormat::kInt4);
  EXPECT_TRUE(matrix.image->half_scales && matrix.image->has_offsets && matrix.image->zero_points);
  EXPECT_TRUE(std::ranges::equal(matrix.image->bytes, as_bytes(panels)));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(matrix.image->bytes.data()) % 64, 0U);
  EXPECT_TRUE(std::ranges::equal(file->vectors.at("v"), values));
  EXPECT_FALSE(PackedFileWriter::create(path).ok()) << "is there already";
}

TEST(PackedFile, EveryBitFlipAndTruncationOfTheTableIsRefused) {
  const std::string file = with_vectors(R"("v":{"size":3,"offset":64})");
  EXPECT_TRUE(parse(file).ok()) << parse(file).message();
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(parse(std::string_view(file).substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(parse(file + "x").ok());
  for (std::size_t bit = 0; bit < 8 * file.size(); ++bit) {
    if (bit / 8 >= 40 && bit / 8 < 128) continue;  // zeros, and the data
    std::string broken = file;
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(parse(broken).ok()) << bit;
  }
  EXPECT_EQ(parse(with_table("{}", 1)).code(), StatusCode::kUnsupported);
  EXPECT_EQ(parse(with_table("{}", 3)).code(), StatusCode::kUnsupported);
}

TEST(PackedFile, RefusesTables) {
  for (const char* table : {"", "[]", "{}", R"({"tensors":{}})", R"({"tensors":[1],"matrices":{},"vectors":{}})",
                            R"({"tensors":[],"matrices":[],"vectors":{}})", R"({"tensors":[],"matrices":{}})",
                            R"({"tensors":[],"matrices":{"m":1},"vectors":{}})",
                            R"({"tensors":[],"matrices":{},"vectors":{},"config":[]})"}) {
    EXPECT_EQ(parse(with_table(table)).code(), StatusCode::kCorrupt) << table;
  }
  for (const char* entries : {R"("v":{"size":3})", R"("v":{"size":17,"offset":64})", R"("v":{"size":1,"offset":65})",
                              R"("v":{"size":1,"offset":0})", R"("v":{"size":1,"offset":128})",
                              R"("v":{"size":-1,"offset":64})", R"("v":{"size":4611686018427387904,"offset":64})",
                              R"("v":{"size":1,"offset":64},"w":{"size":1,"offset":64})"}) {
    EXPECT_EQ(parse(with_vectors(entries)).code(), StatusCode::kCorrupt) << entries;
  }
  EXPECT_TRUE(parse(with_matrix(R"({"format":"float32","rows":1,"cols":1,"group":0,"offset":64,"bytes":64})")).ok());
  for (const char* entry :
       {R"({"format":"float32","rows":0,"cols":1,"group":0,"offset":64,"bytes":64})",
        R"({"format":"float32","rows":1,"cols":1,"group":-1,"offset":64,"bytes":64})",
        R"({"format":"float32","rows":1,"cols":1,"group":0,"offset":64,"bytes":65})",
        R"({"format":"float32","rows":1,"cols":9223372036854775807,"group":0,"offset":64,"bytes":64})",
        R"({"format":"float32","rows":1,"cols":2,"group":0,"offset":64,"bytes":0,"input_order":64})",
        R"({"format":"float32","rows":1,"cols":99,"group":0,"offset":64,"bytes":0,"input_order":64})"}) {
    EXPECT_EQ(parse(with_matrix(entry)).code(), StatusCode::kCorrupt) << entry;
  }
  EXPECT_EQ(parse(with_matrix(R"({"format":"int2","rows":1,"cols":1,"group":0,"offset":64,"bytes":64})")).code(),
            StatusCode::kUnsupported);
}

TEST(PackedSpec, MatricesAreWholeAndInOrder) {
  DecoderSpec spec;
  spec.embedding = spec.head = "model.embed_tokens.weight";
  spec.layers.resize(2);
  spec.layers[1].q = {.weight = "blk.1.attn_q.weight",
                      .bias = "blk.1.attn_q.bias",
                      .rows = 64,
                      .cols = 32,
                      .row_order = RowOrder::kPairwiseRope,
                      .heads = 4};
  spec.layers[1].attention_norm.weight = "blk.1.attn_norm.weight";
  const DecoderSpec packed = packed_spec(spec);
  EXPECT_EQ(packed.embedding, packed.head);
  const ProjectionSpec& q = packed.layers[1].q;
  EXPECT_EQ(q.weight, "layers.1.q");
  EXPECT_EQ(q.bias, "layers.1.q.bias");
  EXPECT_EQ(q.rows, 64);
  EXPECT_EQ(q.row_order, RowOrder::kPlain);
  EXPECT_EQ(packed.layers[1].attention_norm.weight, "blk.1.attn_norm.weight");
  spec.normalize_head = true;  // one matrix, of which the head is another form
  EXPECT_EQ(packed_spec(spec).head, "head");
  EXPECT_FALSE(packed_spec(spec).normalize_head);
  spec.head = "lm_head.weight";
  EXPECT_EQ(packed_spec(spec).head, "head");
  EXPECT_EQ(projections_of(spec).size(), 1U);
}

TEST(Convert, GivesTheSameModelWithPackedMatrices) {
  const TemporaryFolder folder;
  const std::string source = folder.path() + "/m.gguf";
  folder.write("m.gguf", small_llama_gguf({"a", "b"}).file());
  const std::string target = folder.path() + "/out/";
  ASSERT_TRUE(convert_model({.source = source, .destination = target, .threads = 1}).ok());
  const auto before = open_checkpoint(source);
  const auto after = open_checkpoint(target);
  ASSERT_TRUE(after.ok()) << after.status().message();
  EXPECT_EQ((*after)->kind(), CheckpointKind::kGguf);
  EXPECT_TRUE((*after)->is_packed());
  EXPECT_EQ((*after)->config(), (*before)->config());
  const auto spec = read_decoder_spec(**after);
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  const ProjectionSpec& q = spec->layers[0].q;
  const auto matrix = (*after)->matrix(q.weight, q.rows, q.cols);
  ASSERT_TRUE(matrix.ok()) << matrix.status().message();
  EXPECT_NE(matrix->packed, nullptr);
  EXPECT_EQ((*after)->matrix(q.weight, q.rows + 1, q.cols).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ((*after)->matrix("blk.0.attn_q.weight", q.rows, q.cols).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(open_checkpoint(target, {.format = ModelFormat::kAwq}).status().code(), StatusCode::kInvalidArgument);
}

TEST(Convert, KeepsWhatAGgufTellsByItsTensors) {
  const TemporaryFolder folder;
  const std::string source = folder.path() + "/m.gguf";
  GgufBuilder gguf = small_llama_gguf({"a", "b"});
  gguf.add_tensor("output.weight", {32, 2}, 0, std::string(4UL * 64, '\0'));  // not tied
  folder.write("m.gguf", gguf.file());
  const std::string target = folder.path() + "/out";
  ASSERT_TRUE(convert_model({.source = source, .destination = target, .threads = 1}).ok());
  const auto before = open_checkpoint(source);
  const auto after = open_checkpoint(target);
  ASSERT_TRUE(after.ok()) << after.status().message();
  EXPECT_EQ((*after)->config(), (*before)->config());
  const auto spec = read_decoder_spec(**after);
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->head, "head");
  folder.write("out/model.lanner", with_table(R"({"tensors":[],"matrices":{},"vectors":{}})"));
  EXPECT_EQ(open_checkpoint(target).status().code(), StatusCode::kUnsupported) << "without the configuration";
}

TEST(Convert, LeavesNothingBehindWhenItFails) {
  const TemporaryFolder folder;
  folder.write("source/config.json", R"({"architectures": ["LlamaForCausalLM"]})");  // and the rest is missing
  folder.write("source/model.safetensors",
               safetensors_file(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4));
  const std::string source = folder.path() + "/source";
  EXPECT_FALSE(convert_model({.source = source, .destination = folder.path() + "/out"}).ok());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  const Status status = convert_model({.source = source, .destination = source});
  EXPECT_EQ(status.code(), StatusCode::kConflict);
}

}  // namespace
}  // namespace lanner::model
