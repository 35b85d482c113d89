#include "model/torch_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string_view>

#include "core/check.h"
#include "core/crc32.h"
#include "core/float16.h"
#include "core/mapped_file.h"

namespace lanner::model {
namespace {

constexpr std::size_t kAlignment = 64;  // of an entry's bytes in the file, as torch.save has it
constexpr std::size_t kMostEntries = 65'534;
constexpr std::size_t kMostBytes = 0xFFFFFFFE;  // beyond, and of more entries, zip has another form

template <typename T>
void append(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    out += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 255U);
  }
}

/// The instructions of a pickle (pickle.h), and the elements of its tensors.
class Pickler {
 public:
  explicit Pickler(const TorchTable& table) {
    out_ = "\x80\x02";
    out_ += "}(";
    for (const auto& [name, values] : table) {
      text(name);
      out_ += "}(";
      for (const auto& [key, value] : values) {
        text(key);
        std::visit([this](const auto& one) { add(one); }, value);
      }
      out_ += 'u';
    }
    out_ += "u.";
  }

  const std::string& pickle() const { return out_; }
  const std::vector<const std::string*>& storages() const { return storages_; }

 private:
  void text(std::string_view text) {
    out_ += 'X';
    append(out_, static_cast<std::uint32_t>(text.size()));
    out_ += text;
  }
  void integer(std::int64_t number) {
    LANNER_CHECK(number >= 0 && number <= std::numeric_limits<std::int32_t>::max());
    out_ += 'J';
    append(out_, static_cast<std::uint32_t>(number));
  }
  void global(std::string_view module, std::string_view name) { out_ += fmt::format("c{}\n{}\n", module, name); }

  void add(std::monostate /*none*/) { out_ += 'N'; }
  void add(double number) {
    const auto bits = std::bit_cast<std::uint64_t>(number);
    out_ += 'G';
    for (int shift = 56; shift >= 0; shift -= 8) out_ += static_cast<char>(bits >> static_cast<unsigned>(shift) & 255U);
  }
  void add(const TorchTensor& tensor) {
    const std::int64_t count = static_cast<std::int64_t>(tensor.bytes.size()) / (tensor.is_half ? 2 : 4);
    global("torch._utils", "_rebuild_tensor_v2");
    out_ += "((";
    text("storage");
    global("torch", tensor.is_half ? "HalfStorage" : "FloatStorage");
    text(std::to_string(storages_.size()));
    text("cpu");
    integer(count);
    out_ += "tQ";
    integer(0);
    out_ += '(';
    for (const std::int64_t size : tensor.shape) integer(size);
    out_ += "t(";
    std::int64_t stride = count;
    for (const std::int64_t size : tensor.shape) {
      if (size > 0) stride /= size;
      integer(stride);
    }
    out_ += "t\x89";
    global("collections", "OrderedDict");
    out_ += ")RtR";
    storages_.push_back(&tensor.bytes);
  }

  std::string out_;
  std::vector<const std::string*> storages_;
};

/// A zip archive of stored entries.
class ZipWriter {
 public:
  void add(const std::string& name, std::string_view content) {
    const std::uint32_t sum = crc32(content);
    const std::size_t place = file_.size();
    const std::size_t begin = place + 30 + name.size() + 4;
    const std::size_t padding = (kAlignment - begin % kAlignment) % kAlignment;
    append(file_, std::uint32_t{0x04034B50});
    append_common(file_, content, sum);
    append(file_, static_cast<std::uint16_t>(name.size()));
    append(file_, static_cast<std::uint16_t>(4 + padding));
    file_ += name + "FB";
    append(file_, static_cast<std::uint16_t>(padding));
    file_.append(padding, 'Z');
    file_ += content;
    append(directory_, std::uint32_t{0x02014B50});
    append(directory_, std::uint16_t{0});  // made by
    append_common(directory_, content, sum);
    append(directory_, static_cast<std::uint16_t>(name.size()));
    append(directory_, std::uint64_t{0});  // extra, comment, disk, attributes
    append(directory_, std::uint32_t{0});  // more of them
    append(directory_, static_cast<std::uint32_t>(place));
    directory_ += name;
    ++entries_;
  }

  std::string finish() {
    const std::size_t begin = file_.size();
    file_ += directory_;
    append(file_, std::uint32_t{0x06054B50});
    append(file_, std::uint32_t{0});  // disks
    append(file_, static_cast<std::uint16_t>(entries_));
    append(file_, static_cast<std::uint16_t>(entries_));
    append(file_, static_cast<std::uint32_t>(directory_.size()));
    append(file_, static_cast<std::uint32_t>(begin));
    append(file_, std::uint16_t{0});  // comment
    return std::move(file_);
  }

 private:
  /// What an entry and its line in the directory both have.
  static void append_common(std::string& out, std::string_view content, std::uint32_t sum) {
    append(out, std::uint16_t{0});           // version that is needed
    append(out, std::uint16_t{0});           // flags
    append(out, std::uint16_t{0});           // stored
    append(out, std::uint32_t{0x00210000});  // the first day of 1980, as a zip without a clock says
    append(out, sum);
    append(out, static_cast<std::uint32_t>(content.size()));
    append(out, static_cast<std::uint32_t>(content.size()));
  }

  std::string file_;
  std::string directory_;
  std::size_t entries_ = 0;
};

/// What the file has at most besides tensors' elements: of each entry its name twice, headers and padding.
constexpr std::size_t kEntryBytes = 256;

}  // namespace

TorchTensor torch_tensor(std::span<const float> values, std::vector<std::int64_t> shape) {
  TorchTensor tensor{.shape = std::move(shape)};
  tensor.is_half = std::ranges::all_of(
      values, [](float value) { return !std::isfinite(value) || std::isfinite(to_float(to_half(value))); });
  for (const float value : values) {
    if (tensor.is_half) {
      append(tensor.bytes, to_half(value).bits);
    } else {
      append(tensor.bytes, std::bit_cast<std::uint32_t>(value));
    }
  }
  return tensor;
}

Status write_torch_file(const std::string& path, const TorchTable& table) {
  const Pickler pickler(table);
  std::size_t bytes = pickler.pickle().size();
  for (const std::string* storage : pickler.storages()) bytes += storage->size() + kEntryBytes;
  if (pickler.storages().size() + 3 > kMostEntries || bytes > kMostBytes) {
    return unsupported(fmt::format("{}: more than a zip file holds", path));
  }
  ZipWriter zip;
  zip.add("archive/data.pkl", pickler.pickle());
  zip.add("archive/byteorder", "little");
  for (std::size_t i = 0; i < pickler.storages().size(); ++i) {
    zip.add(fmt::format("archive/data/{}", i), *pickler.storages()[i]);
  }
  zip.add("archive/version", "3\n");
  return write_file_atomically(path, zip.finish());
}

}  // namespace lanner::model
