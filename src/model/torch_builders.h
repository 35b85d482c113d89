#pragma once
// Hand-made files of torch.save for tests, right or deliberately wrong.

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/file_builders.h"

namespace lanner::model {

/// A zip archive of stored entries. The members beside the entries are written as they are set.
struct ZipBuilder {
  struct Entry {
    std::string name;
    std::string data;
    std::uint16_t method = 0;
    std::uint16_t flags = 0;
    std::string local_name;         // empty: the name
    std::int64_t header_shift = 0;  // added to the place of the local header in the directory
    std::int64_t size_shift = 0;    // added to both sizes in the directory
    std::int64_t packed_shift = 0;  // and to the packed one alone
    std::string extra;              // of the directory
    bool in_zip64 = false;          // sizes and place in a zip64 field
  };
  std::vector<Entry> entries;
  bool zip64 = true;
  std::int64_t count_shift = 0;      // added to the number of entries
  std::int64_t directory_shift = 0;  // added to the directory's place
  std::string gap;                   // between the entries and the directory
  std::string tail;                  // behind the end

  ZipBuilder& add(std::string name, std::string data) {
    entries.push_back({.name = std::move(name), .data = std::move(data)});
    return *this;
  }

  std::string file() const {
    std::string file, directory;
    for (const Entry& entry : entries) {
      const std::size_t place = file.size();
      append_local(file, entry);
      append_central(directory, entry, place);
    }
    file += gap;
    const std::size_t begin = file.size();
    file += directory;
    append_end(file, begin, directory.size());
    return file + tail;
  }

 private:
  static void append_local(std::string& out, const Entry& entry) {
    const std::string& name = entry.local_name.empty() ? entry.name : entry.local_name;
    append(out, std::uint32_t{0x04034B50});
    append(out, std::uint16_t{0});
    append(out, entry.flags);
    append(out, entry.method);
    append(out, std::uint32_t{0});  // time and date
    append(out, std::uint32_t{0});  // checksum
    append(out, std::uint32_t{0});  // sizes are in the directory alone, as PyTorch has it
    append(out, std::uint32_t{0});
    append(out, static_cast<std::uint16_t>(name.size()));
    append(out, std::uint16_t{4});
    out += name + "FB";
    out.resize(out.size() + 2);
    out += entry.data;
  }

  static void append_central(std::string& out, const Entry& entry, std::size_t place) {
    const auto size = entry.data.size() + static_cast<std::uint64_t>(entry.size_shift);
    const auto packed = size + static_cast<std::uint64_t>(entry.packed_shift);
    const auto header = place + static_cast<std::uint64_t>(entry.header_shift);
    std::string extra = entry.extra;
    if (entry.in_zip64) {
      append(extra, std::uint16_t{1});
      append(extra, std::uint16_t{24});
      append(extra, size);
      append(extra, packed);
      append(extra, header);
    }
    const auto short_number = [&](std::uint64_t number) {
      return entry.in_zip64 ? std::uint32_t{0xFFFFFFFF} : static_cast<std::uint32_t>(number);
    };
    append(out, std::uint32_t{0x02014B50});
    append(out, std::uint32_t{0});  // versions
    append(out, entry.flags);
    append(out, entry.method);
    append(out, std::uint64_t{0});  // time, date, checksum
    append(out, short_number(packed));
    append(out, short_number(size));
    append(out, static_cast<std::uint16_t>(entry.name.size()));
    append(out, static_cast<std::uint16_t>(extra.size()));
    append(out, std::uint16_t{0});  // comment
    append(out, std::uint64_t{0});  // disk, attributes
    append(out, short_number(header));
    out += entry.name + extra;
  }

  void append_end(std::string& out, std::size_t begin, std::size_t bytes) const {
    const auto count = entries.size() + static_cast<std::uint64_t>(count_shift);
    const auto place = begin + static_cast<std::uint64_t>(directory_shift);
    const std::uint64_t record = out.size();
    if (zip64) {
      append(out, std::uint32_t{0x06064B50});
      append(out, std::uint64_t{44});
      append(out, std::uint32_t{0});  // versions
      append(out, std::uint64_t{0});  // disks
      append(out, count);
      append(out, count);
      append(out, std::uint64_t{bytes});
      append(out, place);
      append(out, std::uint32_t{0x07064B50});
      append(out, std::uint32_t{0});
      append(out, record);
      append(out, std::uint32_t{1});
    }
    append(out, std::uint32_t{0x06054B50});
    append(out, std::uint32_t{0});  // disks
    append(out, static_cast<std::uint16_t>(count));
    append(out, static_cast<std::uint16_t>(count));
    append(out, static_cast<std::uint32_t>(bytes));
    append(out, static_cast<std::uint32_t>(place));
    append(out, std::uint16_t{0});
  }
};

/// Instructions of a pickle.
namespace pickled {

inline std::string text(std::string_view text) {
  std::string out = "X";
  append(out, static_cast<std::uint32_t>(text.size()));
  return out += text;
}
inline std::string integer(std::int64_t number) {
  std::string out = "\x8A\x08";
  append(out, number);
  return out;
}
inline std::string global(std::string_view module, std::string_view name) {
  return fmt::format("c{}\n{}\n", module, name);
}
inline std::string tuple(const std::vector<std::string>& elements) {
  std::string out = "(";
  for (const std::string& element : elements) out += element;
  return out + "t";
}
inline std::string sizes(const std::vector<std::int64_t>& sizes) {
  std::vector<std::string> elements;
  for (const std::int64_t size : sizes) elements.push_back(integer(size));
  return tuple(elements);
}
inline std::string ordered_dict() { return global("collections", "OrderedDict") + ")R"; }
inline std::string storage(std::string_view type, std::string_view key, std::int64_t count) {
  return tuple({text("storage"), global("torch", type), text(key), text("cpu"), integer(count)}) + "Q";
}
inline std::string tensor(const std::string& storage, std::int64_t first, const std::vector<std::int64_t>& shape,
                          const std::vector<std::int64_t>& strides) {
  return global("torch._utils", "_rebuild_tensor_v2") +
         tuple({storage, integer(first), sizes(shape), sizes(strides), "\x89", ordered_dict()}) + "R";
}
/// A whole pickle: a dict of names and what makes their values.
inline std::string dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string out = "\x80\x02";
  out += ordered_dict() + "(";
  for (const auto& [name, value] : items) out += text(name) + value;
  return out + "u.";
}

}  // namespace pickled

/// A file of torch.save: the pickle, and the bytes of each storage.
inline ZipBuilder torch_zip(const std::string& pickle,
                            const std::vector<std::pair<std::string, std::string>>& storages) {
  ZipBuilder zip;
  zip.add("archive/data.pkl", pickle).add("archive/byteorder", "little");
  for (const auto& [key, bytes] : storages) zip.add("archive/data/" + key, bytes);
  return zip.add("archive/version", "3\n");
}

}  // namespace lanner::model
