#include "model/torch_file.h"

#include <gtest/gtest.h>

#include "model/torch_builders.h"

namespace lanner::model {
namespace {

using namespace pickled;

Result<std::vector<StoredTensor>> parse(std::string_view file) {
  return parse_torch_file(as_bytes(file), nullptr, "x");
}

/// The failure of a file with one tensor and one storage of 24 bytes.
Status with(const std::string& tensor) {
  return parse(torch_zip(dict({{"t", tensor}}), {{"0", std::string(24, 'x')}}).file()).status();
}

std::string floats() { return storage("FloatStorage", "0", 6); }

TEST(TorchFile, TensorsAreViewsOfTheFile) {
  const std::string shared = storage("HalfStorage", "0", 12);
  const std::string file = torch_zip(dict({{"a", tensor(shared, 0, {2, 3}, {3, 1})},
                                           {"b", tensor(shared, 4, {1, 4}, {99, 1})},
                                           {"c", tensor(storage("LongStorage", "1", 1), 0, {}, {})},
                                           {"d", tensor(storage("FloatStorage", "2", 0), 0, {0, 7}, {7, 1})}}),
                                     {{"0", "abcdefghijklmnopqrstuvwx"}, {"1", "12345678"}, {"2", ""}})
                               .file();
  const auto tensors = parse(file);
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  ASSERT_EQ(tensors->size(), 4U);
  const auto text = [&](std::size_t i) {
    const auto bytes = (*tensors)[i].bytes;
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  EXPECT_EQ(text(0), "abcdefghijkl");
  EXPECT_EQ(text(1), "ijklmnop");
  EXPECT_EQ((*tensors)[1].shape, (std::vector<std::int64_t>{1, 4}));
  EXPECT_EQ((*tensors)[2].dtype, "I64");
  EXPECT_EQ(text(2), "12345678");
  EXPECT_EQ(text(3), "");
  EXPECT_GE((*tensors)[0].bytes.data(), as_bytes(file).data());
  EXPECT_LT((*tensors)[0].bytes.data(), as_bytes(file).data() + file.size());
}

TEST(TorchFile, RefusesTensorsOutsideTheirStorage) {
  EXPECT_TRUE(with(tensor(floats(), 0, {2, 3}, {3, 1})).ok());
  EXPECT_TRUE(with(tensor(floats(), 4, {2}, {1})).ok());
  for (const std::string& value :
       {tensor(floats(), 5, {2}, {1}), tensor(floats(), 0, {7}, {1}), tensor(floats(), INT64_MAX, {1}, {1}),
        tensor(floats(), std::int64_t{1} << 62, {1}, {1}), tensor(floats(), 0, {INT64_MAX}, {1}),
        tensor(floats(), 0, {std::int64_t{1} << 32, std::int64_t{1} << 32}, {std::int64_t{1} << 32, 1}),
        tensor(storage("FloatStorage", "0", 5), 0, {1}, {1}), tensor(storage("FloatStorage", "0", 7), 0, {1}, {1}),
        tensor(storage("FloatStorage", "0", INT64_MAX), 0, {1}, {1}),
        tensor(storage("FloatStorage", "0", (std::int64_t{1} << 62) + 6), 0, {1}, {1}),
        tensor(storage("FloatStorage", "1", 6), 0, {1}, {1}),
        tensor(storage("FloatStorage", "../0", 6), 0, {1}, {1})}) {
    EXPECT_EQ(with(value).code(), StatusCode::kCorrupt) << testing::PrintToString(value);
  }
}

TEST(TorchFile, RefusesOtherStrides) {
  for (const auto& [shape, strides] : std::vector<std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>>>{
           {{2, 3}, {1, 2}}, {{2, 3}, {0, 0}}, {{2}, {2}}, {{2, 3}, {3, 0}}, {{3}, {INT64_MAX}}}) {
    const Status status = with(tensor(floats(), 0, shape, strides));
    EXPECT_EQ(status.code(), StatusCode::kUnsupported);
    EXPECT_NE(status.message().find("x: t: its strides"), std::string::npos) << status.message();
  }
  EXPECT_TRUE(with(tensor(floats(), 0, {1, 6, 1}, {5, 1, 8})).ok());  // sizes of one step nowhere
}

TEST(TorchFile, RefusesOtherFiles) {
  const std::string pickle = dict({{"t", tensor(floats(), 0, {1}, {1})}});
  EXPECT_EQ(parse("").status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse("hello").status().code(), StatusCode::kCorrupt);
  const Status old = parse("\x80\x02\x8A\nl\xFC\x9C\x46\xF9 j\xA8P\x19.\x80\x02M\xE9\x03.").status();
  EXPECT_EQ(old.code(), StatusCode::kUnsupported);
  EXPECT_NE(old.message().find("save_file"), std::string::npos) << old.message();
  EXPECT_EQ(parse(ZipBuilder().file()).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse(ZipBuilder().add("a/b", "").file()).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(parse(ZipBuilder().add("a/b", "").add("b/data.pkl", pickle).file()).status().code(), StatusCode::kCorrupt);
  ZipBuilder big = torch_zip(pickle, {{"0", std::string(24, 'x')}});
  EXPECT_TRUE(parse(big.file()).ok());
  big.entries[1].data = "big";
  EXPECT_EQ(parse(big.file()).status().code(), StatusCode::kUnsupported);
}

TEST(TorchFile, EveryTruncationIsRefused) {
  const std::string file =
      torch_zip(dict({{"t", tensor(floats(), 0, {2, 3}, {3, 1})}}), {{"0", std::string(24, 'x')}}).file();
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(parse(std::string_view(file).substr(0, size)).ok()) << size;
  }
}

}  // namespace
}  // namespace lanner::model
