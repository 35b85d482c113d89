#include "model/zip_archive.h"

#include <gtest/gtest.h>

#include <functional>

#include "model/torch_builders.h"

namespace lanner::model {
namespace {

Result<ZipEntries> parse(std::string_view file) { return read_stored_zip(as_bytes(file), "x.bin"); }

ZipBuilder two_entries() { return ZipBuilder().add("a/one", "first").add("a/two", ""); }

/// The failure of two entries after `change`.
Status with(const std::function<void(ZipBuilder&)>& change) {
  ZipBuilder zip = two_entries();
  change(zip);
  return parse(zip.file()).status();
}

TEST(ZipArchive, ReadsEntriesWhereTheyLie) {
  for (const bool zip64 : {true, false}) {
    for (const bool entry64 : {true, false}) {
      ZipBuilder zip = two_entries();
      zip.zip64 = zip64;
      zip.entries[0].in_zip64 = entry64;
      if (zip64) zip.gap = "padding";
      const std::string file = zip.file();
      const auto entries = parse(file);
      ASSERT_TRUE(entries.ok()) << entries.status().message();
      ASSERT_EQ(entries->size(), 2U);
      const auto one = entries->at("a/one");
      EXPECT_EQ(std::string(reinterpret_cast<const char*>(one.data()), one.size()), "first");
      EXPECT_GE(one.data(), as_bytes(file).data());
      EXPECT_TRUE(entries->at("a/two").empty());
    }
  }
}

TEST(ZipArchive, EveryTruncationIsRefused) {
  for (const bool zip64 : {true, false}) {
    ZipBuilder zip = two_entries();
    zip.zip64 = zip64;
    const std::string file = zip.file();
    for (std::size_t size = 0; size < file.size(); ++size) {
      EXPECT_EQ(parse(std::string_view(file).substr(0, size)).status().code(), StatusCode::kCorrupt) << size;
      EXPECT_EQ(parse(std::string_view(file).substr(file.size() - size)).ok(), false) << size;
    }
    EXPECT_EQ(parse(file + "x").status().code(), StatusCode::kCorrupt);
  }
}

TEST(ZipArchive, EveryBitFlipIsRefusedOrInside) {
  const std::string file = two_entries().file();
  for (std::size_t bit = 0; bit < 8 * file.size(); ++bit) {
    std::string broken = file;
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    const auto entries = parse(broken);
    if (!entries.ok()) continue;
    for (const auto& [name, data] : *entries) {
      ASSERT_GE(data.data(), as_bytes(broken).data());
      ASSERT_LE(data.data() + data.size(), as_bytes(broken).data() + broken.size());
    }
  }
}

TEST(ZipArchive, RefusesWhatIsNotStored) {
  EXPECT_EQ(with([](ZipBuilder& zip) { zip.entries[0].method = 8; }).code(), StatusCode::kUnsupported);
  for (const std::uint16_t flags : {0x1, 0x20, 0x40, 0x2000}) {
    EXPECT_EQ(with([&](ZipBuilder& zip) { zip.entries[0].flags = flags; }).code(), StatusCode::kUnsupported) << flags;
  }
  EXPECT_TRUE(with([](ZipBuilder& zip) { zip.entries[0].flags = 0x808; }).ok());  // what PyTorch sets
  EXPECT_EQ(with([](ZipBuilder& zip) { zip.entries[0].packed_shift = 1; }).code(), StatusCode::kCorrupt);
}

TEST(ZipArchive, RefusesContradictions) {
  const std::vector<std::pair<const char*, std::function<void(ZipBuilder&)>>> cases = {
      {"contradicts", [](ZipBuilder& zip) { zip.entries[1].local_name = "a/six"; }},
      {"twice", [](ZipBuilder& zip) { zip.entries[1].name = "a/one"; }},
      {"no header", [](ZipBuilder& zip) { zip.entries[1].header_shift = 1; }},
      {"outside", [](ZipBuilder& zip) { zip.entries[1].header_shift = 1 << 20; }},
      {"past the end", [](ZipBuilder& zip) { zip.entries[1].size_shift = 1 << 20; }},
      {"past the end", [](ZipBuilder& zip) { zip.entries[1].size_shift = 1; }},
      {"overlap", [](ZipBuilder& zip) { zip.entries[0].size_shift = 1; }},
      {"too short for", [](ZipBuilder& zip) { zip.count_shift = 100; }},
      {"is cut",
       [](ZipBuilder& zip) {
         zip.entries[0].name.resize(60);
         zip.count_shift = 1;
       }},
      {"more than its entries", [](ZipBuilder& zip) { zip.count_shift = -1; }},
      {"does not reach", [](ZipBuilder& zip) { zip.directory_shift = 1; }},
      {"does not reach", [](ZipBuilder& zip) { zip.directory_shift = -1; }},
      {"does not end with", [](ZipBuilder& zip) { zip.tail.resize(1); }},
  };
  for (const auto& [why, change] : cases) {
    const Status status = with(change);
    EXPECT_EQ(status.code(), StatusCode::kCorrupt) << why;
    EXPECT_NE(status.message().find(why), std::string::npos) << why << ": " << status.message();
  }
}

TEST(ZipArchive, RefusesSizesThatWrap) {
  for (const std::int64_t shift : {INT64_MIN, INT64_MIN + 5, std::int64_t{-6}, std::int64_t{1} << 62, INT64_MAX - 5}) {
    EXPECT_EQ(with([&](ZipBuilder& zip) {
                zip.entries[0].in_zip64 = true;
                zip.entries[0].size_shift = shift;
              }).code(),
              StatusCode::kCorrupt)
        << shift;
    EXPECT_EQ(with([&](ZipBuilder& zip) {
                zip.entries[0].in_zip64 = true;
                zip.entries[0].header_shift = shift;
              }).code(),
              StatusCode::kCorrupt)
        << shift;
    EXPECT_EQ(with([&](ZipBuilder& zip) { zip.directory_shift = shift; }).code(), StatusCode::kCorrupt) << shift;
  }
  EXPECT_EQ(with([](ZipBuilder& zip) { zip.count_shift = std::int64_t{1} << 61; }).code(),
            StatusCode::kResourceExhausted);
}

TEST(ZipArchive, RefusesTwoNamesForOneEntry) {
  // Both rows of the directory point at the first entry: what is "overlap" for two readers that trust either.
  ZipBuilder zip = ZipBuilder().add("a/one", "first").add("a/two", "first");
  zip.entries[1].header_shift = -static_cast<std::int64_t>(30 + 5 + 4 + 5);
  const Status status = parse(zip.file()).status();
  EXPECT_EQ(status.code(), StatusCode::kCorrupt);
}

}  // namespace
}  // namespace lanner::model
