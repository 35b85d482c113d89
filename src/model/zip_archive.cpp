#include "model/zip_archive.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "model/json_reader.h"

namespace lanner::model {
namespace {

constexpr std::uint32_t kLocalHeader = 0x04034B50U;
constexpr std::uint32_t kCentralHeader = 0x02014B50U;
constexpr std::uint32_t kEnd = 0x06054B50U;
constexpr std::uint32_t kEnd64 = 0x06064B50U;
constexpr std::uint32_t kLocator64 = 0x07064B50U;
constexpr std::uint64_t kLocalBytes = 30;
constexpr std::uint64_t kCentralBytes = 46;
constexpr std::uint64_t kEndBytes = 22;
constexpr std::uint64_t kEnd64Bytes = 56;
constexpr std::uint64_t kLocator64Bytes = 20;
constexpr std::uint64_t kMaxEntries = 400'000;
constexpr std::uint16_t kMaxNameBytes = 1024;
constexpr std::uint32_t kIn64 = 0xFFFFFFFFU;  // the number is in the zip64 field
constexpr std::uint16_t kIn64Short = 0xFFFFU;
constexpr std::uint16_t kField64 = 1;
constexpr std::uint16_t kFlagsThatChangeBytes = 0x2061;  // encrypted, patched, strongly encrypted, masked

/// Numbers out of a part of the file whose length has been checked.
class Record {
 public:
  explicit Record(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::uint16_t u16(std::uint64_t at) const { return number<std::uint16_t>(at); }
  std::uint32_t u32(std::uint64_t at) const { return number<std::uint32_t>(at); }
  std::uint64_t u64(std::uint64_t at) const { return number<std::uint64_t>(at); }

 private:
  template <typename T>
  T number(std::uint64_t at) const {
    T value{};
    std::memcpy(&value, bytes_.data() + at, sizeof(value));
    return value;
  }
  std::span<const std::byte> bytes_;
};

/// The central directory, as the end of the file tells it.
struct Directory {
  std::uint64_t entries = 0;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct Entry {
  std::string name;
  std::uint64_t header = 0;  // where its local header is
  std::uint64_t size = 0;
  std::uint64_t end = 0;  // behind its data
};

class Reader {
 public:
  Reader(std::span<const std::byte> file, std::string_view path) : file_(file), path_(path) {}

  Result<ZipEntries> read() {
    LANNER_ASSIGN_OR_RETURN(const Directory directory, find_directory());
    LANNER_ASSIGN_OR_RETURN(std::vector<Entry> entries, read_directory(directory));
    ZipEntries result;
    for (Entry& entry : entries) {
      LANNER_ASSIGN_OR_RETURN(const auto data, locate(entry, directory.begin));
      entry.end = static_cast<std::uint64_t>(data.data() - file_.data()) + data.size();
      if (!result.emplace(entry.name, data).second) return wrong(printable(entry.name) + ": is there twice");
    }
    LANNER_RETURN_IF_ERROR(check_apart(std::move(entries)));
    return result;
  }

 private:
  Status wrong(std::string_view why) const { return corrupt(fmt::format("{}: zip archive: {}", path_, why)); }
  Status wrong_entry(const std::string& name, std::string_view why) const {
    return wrong(fmt::format("{}: {}", printable(name), why));
  }
  Status not_readable(const std::string& name, std::string_view why) const {
    return unsupported(fmt::format("{}: zip archive: {}: {}", path_, printable(name), why));
  }
  Record at(std::uint64_t begin, std::uint64_t bytes) const { return Record(file_.subspan(begin, bytes)); }

  Result<Directory> find_directory() const {
    const std::uint64_t size = file_.size();
    if (size < kEndBytes) return wrong("is too short");
    std::uint64_t end_record = size - kEndBytes;
    const Record end = at(end_record, kEndBytes);
    if (end.u32(0) != kEnd || end.u16(20) != 0) return wrong("does not end with its directory");
    Directory directory{end.u16(10), end.u32(16), std::uint64_t{end.u32(16)} + end.u32(12)};
    if (end.u16(4) != end.u16(6) || end.u16(8) != end.u16(10)) return wrong("is a part of a split one");
    if (end_record >= kLocator64Bytes && at(end_record - kLocator64Bytes, 4).u32(0) == kLocator64) {
      LANNER_ASSIGN_OR_RETURN(directory, find_directory64(end_record));
    } else if (end.u16(10) == kIn64Short || end.u32(12) == kIn64 || end.u32(16) == kIn64) {
      return wrong("has no zip64 record though it needs one");
    } else if (directory.end != end_record) {
      return wrong("its directory does not reach its end");
    }
    if (directory.begin > directory.end) return wrong("its directory ends before it begins");
    if (directory.entries > kMaxEntries) {
      return resource_exhausted(fmt::format("{}: {} entries, more than {}", path_, directory.entries, kMaxEntries));
    }
    if (directory.entries > (directory.end - directory.begin) / kCentralBytes) {
      return wrong(fmt::format("its directory is too short for {} entries", directory.entries));
    }
    return directory;
  }

  /// What the zip64 records in front of `end_record` say.
  Result<Directory> find_directory64(std::uint64_t end_record) const {
    const std::uint64_t locator_begin = end_record - kLocator64Bytes;
    const Record locator = at(locator_begin, kLocator64Bytes);
    const std::uint64_t begin = locator.u64(8);
    if (locator_begin < kEnd64Bytes || begin != locator_begin - kEnd64Bytes) return wrong("its zip64 record is astray");
    const Record end = at(begin, kEnd64Bytes);
    if (end.u32(0) != kEnd64 || end.u64(4) != kEnd64Bytes - 12) return wrong("its zip64 record is damaged");
    if (locator.u32(4) != 0 || locator.u32(16) > 1 || end.u32(16) != 0 || end.u32(20) != 0 ||
        end.u64(24) != end.u64(32)) {
      return wrong("is a part of a split one");
    }
    const std::uint64_t bytes = end.u64(40);
    if (bytes > begin || end.u64(48) != begin - bytes) return wrong("its directory does not reach its end");
    return Directory{end.u64(32), end.u64(48), begin};
  }

  Result<std::vector<Entry>> read_directory(const Directory& directory) const {
    std::vector<Entry> entries;
    entries.reserve(directory.entries);
    std::uint64_t place = directory.begin;
    for (std::uint64_t i = 0; i < directory.entries; ++i) {
      if (directory.end - place < kCentralBytes) return wrong("its directory is cut");
      const Record header = at(place, kCentralBytes);
      if (header.u32(0) != kCentralHeader) return wrong("its directory is damaged");
      const std::uint64_t name_bytes = header.u16(28);
      const std::uint64_t extra_bytes = header.u16(30);
      const std::uint64_t bytes = kCentralBytes + name_bytes + extra_bytes + header.u16(32);
      if (directory.end - place < bytes) return wrong("its directory is cut");
      if (name_bytes > kMaxNameBytes) return wrong(fmt::format("has a name of {} bytes", name_bytes));
      Entry entry;
      entry.name = text(place + kCentralBytes, name_bytes);
      LANNER_RETURN_IF_ERROR(read_sizes(header, file_.subspan(place + kCentralBytes + name_bytes, extra_bytes), entry));
      entries.push_back(std::move(entry));
      place += bytes;
    }
    if (place != directory.end) return wrong("its directory holds more than its entries");
    return entries;
  }

  Status read_sizes(const Record& header, std::span<const std::byte> extra, Entry& entry) const {
    if ((header.u16(8) & kFlagsThatChangeBytes) != 0) return not_readable(entry.name, "is encrypted or patched");
    if (header.u16(10) != 0) return not_readable(entry.name, "is compressed");
    std::uint64_t packed = header.u32(20);
    entry.size = header.u32(24);
    entry.header = header.u32(42);
    // The zip64 field holds those of the three numbers that the header has no room for, in this order.
    std::vector<std::uint64_t*> missing;
    if (entry.size == kIn64) missing.push_back(&entry.size);
    if (packed == kIn64) missing.push_back(&packed);
    if (entry.header == kIn64) missing.push_back(&entry.header);
    if (!missing.empty()) {
      const auto field = zip64_field(extra);
      if (!field || field->size() < 8 * missing.size()) return wrong_entry(entry.name, "has no zip64 sizes");
      for (std::size_t i = 0; i < missing.size(); ++i) *missing[i] = Record(*field).u64(8 * i);
    }
    if (packed != entry.size) return wrong_entry(entry.name, "is stored in another size than its own");
    return {};
  }

  static std::optional<std::span<const std::byte>> zip64_field(std::span<const std::byte> extra) {
    while (extra.size() >= 4) {
      const Record header(extra);
      const std::size_t bytes = header.u16(2);
      if (bytes > extra.size() - 4) return std::nullopt;
      if (header.u16(0) == kField64) return extra.subspan(4, bytes);
      extra = extra.subspan(4 + bytes);
    }
    return std::nullopt;
  }

  /// The bytes of an entry, behind its local header, in front of the directory.
  Result<std::span<const std::byte>> locate(const Entry& entry, std::uint64_t directory) const {
    if (entry.header > directory || directory - entry.header < kLocalBytes) {
      return wrong_entry(entry.name, "begins outside the file");
    }
    const Record header = at(entry.header, kLocalBytes);
    if (header.u32(0) != kLocalHeader) return wrong_entry(entry.name, "has no header");
    const std::uint64_t name_bytes = header.u16(26);
    const std::uint64_t begin = entry.header + kLocalBytes + name_bytes + header.u16(28);
    if (begin > directory || entry.size > directory - begin) {
      return wrong_entry(entry.name, fmt::format("of {} bytes reaches past the end", entry.size));
    }
    if (header.u16(8) != 0 || text(entry.header + kLocalBytes, name_bytes) != entry.name) {
      return wrong_entry(entry.name, "its header contradicts the directory");
    }
    return file_.subspan(begin, entry.size);
  }

  Status check_apart(std::vector<Entry> entries) const {
    std::ranges::sort(entries, {}, &Entry::header);
    for (std::size_t i = 1; i < entries.size(); ++i) {
      if (entries[i].header < entries[i - 1].end) {
        return wrong(fmt::format("{} and {} overlap", printable(entries[i - 1].name), printable(entries[i].name)));
      }
    }
    return {};
  }

  std::string text(std::uint64_t begin, std::uint64_t bytes) const {
    return {reinterpret_cast<const char*>(file_.data()) + begin, bytes};
  }

  std::span<const std::byte> file_;
  std::string_view path_;
};

}  // namespace

Result<ZipEntries> read_stored_zip(std::span<const std::byte> file, std::string_view path) {
  return Reader(file, path).read();
}

}  // namespace lanner::model
