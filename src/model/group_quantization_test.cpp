// The layouts by hand; tests/model/test_quantized_folders.py holds whole random matrices against NumPy.

#include "model/group_quantization.h"

#include <gtest/gtest.h>

#include "core/float16.h"
#include "model/file_builders.h"

namespace lanner::model {
namespace {

/// Tensors of one module "m", kept alive by this.
class Module {
 public:
  void set(const std::string& part, std::string dtype, std::vector<std::int64_t> shape, std::string bytes) {
    const auto copy = std::make_shared<const std::string>(std::move(bytes));
    const std::string name = "m." + part;
    tensors[name] = {name, std::move(dtype), std::move(shape), as_bytes(*copy), copy};
  }
  void set_words(const std::string& part, std::vector<std::int64_t> shape, const std::vector<std::uint32_t>& words) {
    std::string bytes;
    for (const std::uint32_t word : words) append(bytes, word);
    set(part, "I32", std::move(shape), std::move(bytes));
  }
  void set_scales(std::vector<std::int64_t> shape, const std::vector<float>& values) {
    std::string bytes;
    for (const float value : values) append(bytes, to_half(value).bits);
    set("scales", "F16", std::move(shape), std::move(bytes));
  }

  TensorMap tensors;
};

/// 8 rows, 32 columns in one group; every column's word is the same.
Module one_group(ModelFormat format, std::uint32_t word, std::uint32_t zeros) {
  Module module;
  if (format == ModelFormat::kAwq) {
    module.set_words("qweight", {32, 1}, std::vector<std::uint32_t>(32, word));
  } else {
    module.set_words("qweight", {4, 8}, std::vector<std::uint32_t>(32, word));
  }
  module.set_words("qzeros", {1, 1}, {zeros});
  module.set_scales({1, 8}, {1, 2, 4, 8, 0.5F, 0.25F, 0, -1});
  return module;
}

Result<ops::WeightSource> unpack(const Module& module, const GroupQuantization& quantization, std::int64_t rows = 8,
                                 std::int64_t cols = 32) {
  LANNER_ASSIGN_OR_RETURN(const auto found, find_quantized(module.tensors, "m", rows, cols, quantization, "folder"));
  return unpack_quantized(found, quantization, "folder");
}

constexpr GroupQuantization kAwq{.format = ModelFormat::kAwq, .zeros_less_one = false};
constexpr GroupQuantization kGptq{.format = ModelFormat::kGptq};

TEST(GroupQuantization, AwqInterleavesRows) {
  // Nibbles from the lowest: rows 0 2 4 6 1 3 5 7 hold 0 2 4 6 1 3 5 7; zeros alike.
  const auto source = unpack(one_group(ModelFormat::kAwq, 0x75316420U, 0x75316420U), kAwq);
  ASSERT_TRUE(source.ok()) << source.status().message();
  EXPECT_EQ(source->format, ops::WeightFormat::kInt4);
  EXPECT_EQ(source->group, 32);
  EXPECT_TRUE(source->input_order.empty());
  for (std::size_t row = 0; row < 8; ++row) {
    EXPECT_EQ(source->codes[row * 32], row);
    EXPECT_EQ(source->codes[row * 32 + 31], row);
  }
  EXPECT_EQ(source->scales, (std::vector<float>{1, 2, 4, 8, 0.5F, 0.25F, 0, -1}));
  EXPECT_EQ(source->offsets, (std::vector<float>{0, -2, -8, -24, -2, -1.25F, 0, 7}));
}

TEST(GroupQuantization, AwqWithoutZerosCountsFromEight) {
  Module module = one_group(ModelFormat::kAwq, 0, 0);
  module.tensors.erase("m.qzeros");
  EXPECT_EQ(unpack(module, kAwq).status().code(), StatusCode::kNotFound);
  GroupQuantization symmetric = kAwq;
  symmetric.has_zeros = false;
  const auto source = unpack(module, symmetric);
  ASSERT_TRUE(source.ok()) << source.status().message();
  EXPECT_EQ(source->offsets[1], -16.0F);
}

TEST(GroupQuantization, GptqKeepsColumnsInWords) {
  // Columns 0 to 7 of each row are 0 to 7. Zeros 8 in every row, less one.
  auto source = unpack(one_group(ModelFormat::kGptq, 0x76543210U, 0x77777777U), kGptq);
  ASSERT_TRUE(source.ok()) << source.status().message();
  for (std::size_t i = 0; i < 8 * 32; ++i) ASSERT_EQ(source->codes[i], i % 8);
  EXPECT_EQ(source->offsets, (std::vector<float>{-8, -16, -32, -64, -4, -2, 0, 8}));
  GroupQuantization second = kGptq;
  second.zeros_less_one = false;
  source = unpack(one_group(ModelFormat::kGptq, 0, 0x77777777U), second);
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(source->offsets[0], -7.0F);
}

TEST(GroupQuantization, GptqZerosOfZeroBorrowFromTheirNeighbours) {
  // Zeros 0, 8, 0, 15, 1, 2, 3, 4 as one number less 0x11111111.
  const std::uint32_t zeros = 0x4321F080U;
  const auto source = unpack(one_group(ModelFormat::kGptq, 0, zeros - 0x11111111U), kGptq);
  ASSERT_TRUE(source.ok()) << source.status().message();
  EXPECT_EQ(source->offsets, (std::vector<float>{0, -16, 0, -120, -0.5F, -0.5F, 0, 4}));
}

TEST(GroupQuantization, GptqOfEightBitsBecomesInt8) {
  Module module;
  module.set_words("qweight", {8, 4}, std::vector<std::uint32_t>(32, 0xFF800100U));
  module.set_words("qzeros", {1, 1}, {0x7F7F7FFFU});
  module.set_scales({1, 4}, {1, 1, 2, 4});
  GroupQuantization wide = kGptq;
  wide.bits = 8;
  const auto source = unpack(module, wide, 4, 32);
  ASSERT_TRUE(source.ok()) << source.status().message();
  EXPECT_EQ(source->format, ops::WeightFormat::kInt8);
  EXPECT_EQ(static_cast<std::int8_t>(source->codes[0]), -128);
  EXPECT_EQ(static_cast<std::int8_t>(source->codes[1]), -127);
  EXPECT_EQ(static_cast<std::int8_t>(source->codes[2]), 0);
  EXPECT_EQ(static_cast<std::int8_t>(source->codes[3]), 127);
  EXPECT_EQ(source->offsets, (std::vector<float>{128, -1, 0, 0}));  // zeros 0, 129, 128, 128 as stored less one
}

TEST(GroupQuantization, SortsColumnsByGroup) {
  Module module;  // 8 rows, 64 columns; column c has code c / 8 in every row
  std::vector<std::uint32_t> words;
  for (std::uint32_t r = 0; r < 8; ++r) words.insert(words.end(), 8, r * 0x11111111U);
  module.set_words("qweight", {8, 8}, words);
  module.set_words("qzeros", {2, 1}, {0x77777777U, 0x77777777U});
  module.set_scales({2, 8}, std::vector<float>(16, 1.0F));
  std::vector<std::uint32_t> groups;
  for (std::uint32_t c = 0; c < 64; ++c) groups.push_back(1 - c % 2);
  module.set_words("g_idx", {64}, groups);
  auto source = unpack(module, kGptq, 8, 64);
  ASSERT_TRUE(source.ok()) << source.status().message();
  ASSERT_EQ(source->input_order.size(), 64U);
  for (std::int32_t i = 0; i < 64; ++i) {
    const std::int32_t column = i < 32 ? 2 * i + 1 : 2 * (i - 32);
    EXPECT_EQ(source->input_order[static_cast<std::size_t>(i)], column);
    EXPECT_EQ(source->codes[static_cast<std::size_t>(i)], column / 8);
  }
  for (std::uint32_t c = 0; c < 64; ++c) groups[c] = c / 32;
  module.set_words("g_idx", {64}, groups);
  source = unpack(module, kGptq, 8, 64);
  ASSERT_TRUE(source.ok());
  EXPECT_TRUE(source->input_order.empty()) << "in order already";
  for (const std::uint32_t wrong : {2U, 0xFFFFFFFFU, 0U}) {  // outside, negative, one more than there is room for
    groups[63] = wrong;
    module.set_words("g_idx", {64}, groups);
    EXPECT_EQ(unpack(module, kGptq, 8, 64).status().code(), StatusCode::kCorrupt) << wrong;
  }
}

TEST(GroupQuantization, CutsLargeGroups) {
  for (const auto& [cols, group] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {128, 128}, {256, 128}, {64, 64}, {192, 64}, {96, 32}, {32, 32}}) {
    Module module;
    module.set_words("qweight", {cols, 1}, std::vector<std::uint32_t>(static_cast<std::size_t>(cols), 0));
    module.set_words("qzeros", {1, 1}, {0x11111111U});
    module.set_scales({1, 8}, {1, 2, 3, 4, 5, 6, 7, 8});
    GroupQuantization all = kAwq;
    all.group = -1;
    const auto source = unpack(module, all, 8, cols);
    ASSERT_TRUE(source.ok()) << source.status().message();
    EXPECT_EQ(source->group, group);
    ASSERT_EQ(source->scales.size(), static_cast<std::size_t>(8 * cols / group));
    EXPECT_EQ(source->scales.back(), 8.0F);
    EXPECT_EQ(source->scales.front(), 1.0F);
    EXPECT_EQ(source->offsets.back(), -8.0F);
  }
}

TEST(GroupQuantization, RefusesTensors) {
  const auto refused = [](const char* part, const char* dtype, std::vector<std::int64_t> shape, std::size_t bytes) {
    Module module = one_group(ModelFormat::kAwq, 0, 0);
    module.set(part, dtype, std::move(shape), std::string(bytes, '\0'));
    const Status status = unpack(module, kAwq).status();
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    return status.code();
  };
  EXPECT_EQ(refused("qweight", "I32", {4, 8}, 128), StatusCode::kCorrupt);  // GPTQ's shape
  EXPECT_EQ(refused("qweight", "I64", {32, 1}, 256), StatusCode::kUnsupported);
  EXPECT_EQ(refused("qzeros", "I32", {2, 1}, 8), StatusCode::kCorrupt);
  EXPECT_EQ(refused("qzeros", "F32", {1, 1}, 4), StatusCode::kUnsupported);
  EXPECT_EQ(refused("scales", "F16", {1, 9}, 18), StatusCode::kCorrupt);
  EXPECT_EQ(refused("scales", "F16", {0, 8}, 0), StatusCode::kCorrupt);
  EXPECT_EQ(refused("scales", "F16", {}, 2), StatusCode::kCorrupt);
  EXPECT_EQ(refused("scales", "I32", {1, 8}, 32), StatusCode::kUnsupported);
  Module module = one_group(ModelFormat::kAwq, 0, 0);
  module.set_scales({1, 8}, {1, 1, 1, 1, 1, 1, 1, INFINITY});
  EXPECT_EQ(unpack(module, kAwq).status().code(), StatusCode::kCorrupt);
  module = one_group(ModelFormat::kAwq, 0, 0);
  EXPECT_EQ(unpack(module, kAwq, 12, 32).status().code(), StatusCode::kUnsupported);
  module.set_words("qzeros", {2, 1}, {0, 0});
  module.set_scales({2, 8}, std::vector<float>(16));
  EXPECT_EQ(unpack(module, kAwq).status().code(), StatusCode::kUnsupported);  // groups of 16
  GroupQuantization other = kAwq;
  other.group = 64;
  EXPECT_EQ(unpack(module, other).status().code(), StatusCode::kCorrupt);  // not what config.json says
  module.tensors.erase("m.scales");
  EXPECT_EQ(unpack(module, kAwq).status().code(), StatusCode::kNotFound);
}

TEST(GroupQuantization, RefusesGroupsThatDoNotFillTheColumns) {
  // 160 columns in groups of 128 are two groups, but not two of 80.
  Module module;
  module.set_words("qweight", {160, 1}, std::vector<std::uint32_t>(160, 0));
  module.set_words("qzeros", {2, 1}, {0, 0});
  module.set_scales({2, 8}, std::vector<float>(16));
  GroupQuantization quantization = kAwq;
  quantization.group = 128;
  EXPECT_EQ(unpack(module, quantization, 8, 160).status().code(), StatusCode::kCorrupt);
}

Result<GroupQuantization> read(const char* quantization, ModelFormat asked = ModelFormat::kPlain,
                               const char* legacy = "{}") {
  Json config = Json::object();
  config["quantization_config"] = Json::parse(quantization);
  return read_group_quantization(config, Json::parse(legacy), asked, "folder");
}

TEST(GroupQuantization, ReadsConfigurations) {
  auto read_one = read(R"({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "GEMM", "zero_point": false,
                           "modules_to_not_convert": ["visual"]})");
  ASSERT_TRUE(read_one.ok()) << read_one.status().message();
  EXPECT_EQ(read_one->format, ModelFormat::kAwq);
  EXPECT_EQ(read_one->group, 64);
  EXPECT_FALSE(read_one->has_zeros);
  EXPECT_FALSE(read_one->zeros_less_one);
  read_one = read(R"({"quant_method": "gptq", "bits": 8, "group_size": -1, "desc_act": true, "sym": true})");
  ASSERT_TRUE(read_one.ok()) << read_one.status().message();
  EXPECT_EQ(read_one->format, ModelFormat::kGptq);
  EXPECT_EQ(read_one->bits, 8);
  EXPECT_EQ(read_one->group, -1);
  EXPECT_TRUE(read_one->zeros_less_one);
  read_one = read(R"({"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"})", ModelFormat::kGptq);
  ASSERT_TRUE(read_one.ok()) << read_one.status().message();
  EXPECT_FALSE(read_one->zeros_less_one);
  EXPECT_EQ(read("null")->format, ModelFormat::kPlain);
  read_one = read("null", ModelFormat::kAwq, R"({"w_bit": 4, "q_group_size": 64, "version": "GEMM"})");
  ASSERT_TRUE(read_one.ok());
  EXPECT_EQ(read_one->group, 64);
  EXPECT_EQ(read("null", ModelFormat::kAwq)->group, 0);
}

TEST(GroupQuantization, RefusesConfigurations) {
  EXPECT_EQ(read(R"({"quant_method": "awq"})", ModelFormat::kGptq).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(read(R"({"quant_method": "gptq"})", ModelFormat::kAwq).status().code(), StatusCode::kInvalidArgument);
  for (const char* text :
       {R"({"quant_method": "fp8"})", R"({"quant_method": "bitsandbytes"})", R"({"quant_method": "awq", "bits": 8})",
        R"({"quant_method": "awq", "version": "gemv"})", R"({"quant_method": "gptq", "bits": 3})",
        R"({"quant_method": "gptq", "bits": 2})", R"({"quant_method": "gptq", "checkpoint_format": "marlin"})",
        R"({"quant_method": "gptq", "is_marlin_format": true})",
        R"({"quant_method": "gptq", "pack_dtype": "int64"})"}) {
    EXPECT_EQ(read(text).status().code(), StatusCode::kUnsupported) << text;
  }
  for (const char* text :
       {R"({})", R"([])", R"({"quant_method": 1})", R"({"quant_method": "awq", "bits": "4"})",
        R"({"quant_method": "awq", "group_size": -2})", R"({"quant_method": "awq", "zero_point": 1})",
        R"({"quant_method": "awq", "modules_to_not_convert": [1]})"}) {
    EXPECT_EQ(read(text).status().code(), StatusCode::kCorrupt) << text;
  }
}

}  // namespace
}  // namespace lanner::model
