#include "model/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "model/file_builders.h"

namespace lanner::model {
namespace {

Result<std::vector<StoredTensor>> parse(std::string_view file) {
  return parse_safetensors(as_bytes(file), nullptr, "x.safetensors");
}

/// The failure of a file with this header and `bytes` of data.
Status parse_header(std::string_view header, std::size_t bytes) {
  return parse(safetensors_file(header, bytes)).status();
}

std::string entry(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return fmt::format(R"({{"dtype":"{}","shape":{},"data_offsets":{}}})", dtype, shape, offsets);
}

std::string one_tensor(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return fmt::format(R"({{"t":{}}})", entry(dtype, shape, offsets));
}

const std::string kTwoTensors = fmt::format(R"({{"__metadata__":{{"format":"pt"}},"a":{},"b":{}}}  )",
                                            entry("F32", "[2,3]", "[0,24]"), entry("F16", "[4]", "[24,32]"));

TEST(Safetensors, ReadsTensors) {
  const std::string file = safetensors_file(kTwoTensors, 32);
  const auto tensors = parse(file);
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  ASSERT_EQ(tensors->size(), 2U);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ((*tensors)[1].dtype, "F16");
  EXPECT_EQ((*tensors)[1].bytes.data(), as_bytes(file).data() + file.size() - 8);
}

TEST(Safetensors, AcceptsScalarsAndEmptyTensors) {
  EXPECT_TRUE(parse_header(one_tensor("F32", "[]", "[0,4]"), 4).ok());
  EXPECT_TRUE(parse_header(one_tensor("F32", "[0,5]", "[0,0]"), 0).ok());
  EXPECT_TRUE(parse_header(one_tensor("F32", "[1000000,0]", "[0,0]"), 0).ok());
  EXPECT_TRUE(parse_header("{}", 0).ok());
  EXPECT_TRUE(parse_header(one_tensor("I64", "[2]", "[0,16]"), 16).ok());
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const std::string file = safetensors_file(kTwoTensors, 32);
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_EQ(parse(std::string_view(file).substr(0, size)).status().code(), StatusCode::kCorrupt) << size;
  }
  EXPECT_EQ(parse(file + "x").status().code(), StatusCode::kCorrupt);
}

TEST(Safetensors, EveryBitFlipIsRefusedOrConsistent) {
  const std::string file = safetensors_file(kTwoTensors, 32);
  for (std::size_t bit = 0; bit < 8 * (file.size() - 32); ++bit) {
    std::string broken = file;
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    const auto tensors = parse(broken);
    if (!tensors.ok()) continue;
    for (const StoredTensor& tensor : *tensors) {
      ASSERT_GE(tensor.bytes.data(), as_bytes(broken).data());
      ASSERT_LE(tensor.bytes.data() + tensor.bytes.size(), as_bytes(broken).data() + broken.size());
    }
  }
}

TEST(Safetensors, RefusesHeaderLengths) {
  std::string file = safetensors_file("{}", 0);
  for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{3}, std::uint64_t{100'000'001}, UINT64_MAX,
                                     UINT64_MAX - 7, std::uint64_t{1} << 63}) {
    std::memcpy(file.data(), &length, sizeof(length));
    EXPECT_EQ(parse(file).status().code(), StatusCode::kCorrupt) << length;
  }
}

TEST(Safetensors, RefusesShapesThatWrap) {
  // 2^62 * 4 elements is 0 modulo 2^64, 2^31 * 2^31 * 4 bytes likewise.
  EXPECT_EQ(parse_header(one_tensor("F32", "[4611686018427387904,4]", "[0,0]"), 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(one_tensor("F32", "[2147483648,2147483648]", "[0,0]"), 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(one_tensor("F32", "[4611686018427387905]", "[0,4]"), 4).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(one_tensor("F32", "[18446744073709551615]", "[0,4]"), 4).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(one_tensor("F32", "[4611686018427387904,0]", "[0,0]"), 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(one_tensor("F32", "[-1]", "[0,4]"), 4).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(one_tensor("F32", "[1.0]", "[0,4]"), 4).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(one_tensor("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4).code(), StatusCode::kCorrupt);
}

TEST(Safetensors, RefusesWrongExtents) {
  for (const char* offsets : {"[8,4]", "[0,8]", "[0,3]", "[4,8]", "[-4,0]", "[0]", "[0,4,8]", "[0,\"4\"]", "null",
                              "[0,18446744073709551615]", "[9223372036854775804,9223372036854775807]"}) {
    EXPECT_EQ(parse_header(one_tensor("F32", "[1]", offsets), 4).code(), StatusCode::kCorrupt) << offsets;
  }
}

TEST(Safetensors, RefusesOverlapsAndHoles) {
  const auto two = [](std::string_view first, std::string_view second) {
    return fmt::format(R"({{"a":{},"b":{}}})", entry("F32", "[2]", first), entry("F32", "[2]", second));
  };
  EXPECT_TRUE(parse_header(two("[8,16]", "[0,8]"), 16).ok());
  EXPECT_NE(parse_header(two("[0,8]", "[4,12]"), 12).message().find("overlap"), std::string::npos);
  EXPECT_NE(parse_header(two("[0,8]", "[0,8]"), 8).message().find("overlap"), std::string::npos);
  EXPECT_NE(parse_header(two("[0,8]", "[12,20]"), 20).message().find("hole"), std::string::npos);
  EXPECT_NE(parse_header(two("[4,12]", "[12,20]"), 20).message().find("hole"), std::string::npos);
  EXPECT_EQ(parse_header(two("[0,8]", "[8,16]"), 20).code(), StatusCode::kCorrupt);
}

TEST(Safetensors, RefusesHeaders) {
  const std::string tensor = entry("F32", "[1]", "[0,4]");
  EXPECT_EQ(parse_header(fmt::format(R"({{"a":{},"a":{}}})", tensor, tensor), 4).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header("[]", 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(" {}", 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(R"({"a":1})", 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(R"({"__metadata__":{"a":1}})", 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(R"({"__metadata__":[]})", 0).code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse_header(one_tensor("Q9", "[1]", "[0,4]"), 4).code(), StatusCode::kUnsupported);
  const std::string deep = R"({"__metadata__":)" + std::string(50, '[') + std::string(50, ']') + "}";
  EXPECT_EQ(parse_header(deep, 0).code(), StatusCode::kResourceExhausted);
}

TEST(Safetensors, RefusesTooManyTensors) {
  std::string header = "{";
  for (int i = 0; i <= 200'000; ++i) header += fmt::format("{}\"t{}\":0", i == 0 ? "" : ",", i);
  EXPECT_EQ(parse_header(header + "}", 0).code(), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace lanner::model
