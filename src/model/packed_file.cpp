#include "model/packed_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "core/checked.h"
#include "core/fnv1a.h"
#include "core/write_all.h"
#include "model/decoder_spec.h"
#include "model/stored_tensor.h"

namespace lanner::model {
namespace {

constexpr std::string_view kMagic = "LANNERPK";
constexpr std::uint32_t kVersion = 2;
constexpr std::uint32_t kPanelRows = 16;
constexpr std::int64_t kAlignment = 64;
constexpr std::int64_t kMaxTableBytes = 64 << 20;
constexpr JsonLimits kTableLimits{kMaxTableBytes, 4, kMaxTensors * 12};
constexpr std::array<ops::WeightFormat, 5> kFormats{ops::WeightFormat::kF32, ops::WeightFormat::kF16,
                                                    ops::WeightFormat::kBF16, ops::WeightFormat::kInt8,
                                                    ops::WeightFormat::kInt4};

/// The first 64 bytes.
struct Preamble {
  std::array<char, 8> magic{};
  std::uint32_t version = 0;
  std::uint32_t panel_rows = 0;
  std::uint64_t table_offset = 0;
  std::uint64_t table_bytes = 0;
  std::uint64_t table_hash = 0;
  std::array<std::uint64_t, 3> zeros{};
};
static_assert(sizeof(Preamble) == kAlignment);

class TableReader {
 public:
  TableReader(std::span<const std::byte> data, std::shared_ptr<const void> owner, std::string path)
      : data_(data), owner_(std::move(owner)), path_(std::move(path)) {}

  Result<PackedFile> read(const Json& table) {
    PackedFile file;
    const JsonFields fields(table, path_);
    const Json* names = fields.find("tensors");
    if (names == nullptr || !names->is_array()) return fields.wrong("tensors", "is not a list");
    for (const Json& name : *names) {
      if (!name.is_string()) return fields.wrong("tensors", "holds something that is not a name");
      file.tensors.insert(name.get<std::string>());
    }
    for (const char* key : {"matrices", "vectors"}) {
      if (!table.contains(key) || !table[key].is_object()) return fields.wrong(key, "is not an object");
      for (const auto& [name, entry] : table[key].items()) {
        const std::string where = fmt::format("{}: {}", path_, printable(name));
        if (!entry.is_object()) return corrupt(fmt::format("{}: is not an object", where));
        const JsonFields entry_fields(entry, where);
        if (key == std::string_view("matrices")) {
          LANNER_ASSIGN_OR_RETURN(file.matrices[name], matrix(entry_fields));
        } else {
          LANNER_ASSIGN_OR_RETURN(file.vectors[name], vector(entry_fields));
        }
      }
    }
    LANNER_RETURN_IF_ERROR(check_apart());
    LANNER_ASSIGN_OR_RETURN(const auto config, fields.object("config"));
    if (config) file.config = table["config"];
    return file;
  }

 private:
  /// `bytes` at the offset that a field names, inside the data.
  Result<std::span<const std::byte>> place(const JsonFields& fields, std::string_view key, std::int64_t bytes) {
    const auto size = static_cast<std::int64_t>(data_.size());
    LANNER_ASSIGN_OR_RETURN(const std::int64_t offset, fields.integer(key, kAlignment, size));
    if (offset % kAlignment != 0) return fields.wrong(key, fmt::format("{} is not a multiple of 64", offset));
    if (bytes > size - offset) {
      return fields.wrong(key, fmt::format("{} bytes from {} on reach past the {} of data", bytes, offset, size));
    }
    extents_.emplace_back(offset, offset + bytes);
    return data_.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(bytes));
  }

  Result<PackedMatrix> matrix(const JsonFields& fields) {
    const auto size = static_cast<std::int64_t>(data_.size());
    PackedMatrix matrix;
    ops::PackedImage image;
    LANNER_ASSIGN_OR_RETURN(const std::string format, fields.text("format"));
    const auto* known = std::ranges::find(kFormats, format, ops::weight_format_name);
    if (known == kFormats.end()) return fields.not_supported("format", fmt::format("'{}'", printable(format)));
    image.format = *known;
    LANNER_ASSIGN_OR_RETURN(matrix.rows, fields.integer("rows", 1, kMaxVocab));
    LANNER_ASSIGN_OR_RETURN(matrix.cols, fields.integer("cols", 1, kMaxIntermediate));
    LANNER_ASSIGN_OR_RETURN(image.group, fields.integer("group", 0, kMaxIntermediate));
    LANNER_ASSIGN_OR_RETURN(image.half_scales, fields.boolean_or("half_scales", false));
    LANNER_ASSIGN_OR_RETURN(image.has_offsets, fields.boolean_or("has_offsets", false));
    LANNER_ASSIGN_OR_RETURN(image.zero_points, fields.boolean_or("zero_points", false));
    LANNER_ASSIGN_OR_RETURN(const std::int64_t bytes, fields.integer("bytes", 0, size));
    LANNER_ASSIGN_OR_RETURN(image.bytes, place(fields, "offset", bytes));
    image.owner = owner_;
    matrix.image = std::make_shared<const ops::PackedImage>(std::move(image));
    if (fields.has("input_order")) LANNER_RETURN_IF_ERROR(read_order(fields, matrix));
    return matrix;
  }

  /// A permutation of the columns.
  Status read_order(const JsonFields& fields, PackedMatrix& matrix) {
    LANNER_ASSIGN_OR_RETURN(const auto bytes, place(fields, "input_order", matrix.cols * 4));
    matrix.input_order.resize(static_cast<std::size_t>(matrix.cols));
    std::memcpy(matrix.input_order.data(), bytes.data(), bytes.size());
    std::vector<bool> seen(matrix.input_order.size());
    for (const std::int32_t column : matrix.input_order) {
      if (column < 0 || column >= matrix.cols || seen[static_cast<std::size_t>(column)]) {
        return fields.wrong("input_order", "is not an order of the columns");
      }
      seen[static_cast<std::size_t>(column)] = true;
    }
    return {};
  }

  Result<std::span<const float>> vector(const JsonFields& fields) {
    LANNER_ASSIGN_OR_RETURN(const std::int64_t size, fields.integer("size", 0, kMaxVocab));
    LANNER_ASSIGN_OR_RETURN(const auto bytes, place(fields, "offset", size * 4));
    return std::span(reinterpret_cast<const float*>(bytes.data()), static_cast<std::size_t>(size));
  }

  Status check_apart() {
    std::ranges::sort(extents_);
    for (std::size_t i = 1; i < extents_.size(); ++i) {
      if (extents_[i].first < extents_[i - 1].second) {
        return corrupt(fmt::format("{}: parts overlap at byte {}", path_, extents_[i].first));
      }
    }
    return {};
  }

  std::span<const std::byte> data_;  // from the file's begin to its table
  std::shared_ptr<const void> owner_;
  std::string path_;
  std::vector<std::pair<std::int64_t, std::int64_t>> extents_;
};

}  // namespace

Result<PackedFile> parse_packed_file(std::span<const std::byte> file, const std::shared_ptr<const void>& owner,
                                     std::string_view path) {
  const auto wrong = [&](std::string_view why) { return corrupt(fmt::format("{}: {}", path, why)); };
  Preamble preamble;
  if (file.size() < sizeof(preamble)) return wrong("is too short for a converted model");
  std::memcpy(&preamble, file.data(), sizeof(preamble));
  if (std::string_view(preamble.magic.data(), preamble.magic.size()) != kMagic) return wrong("is no converted model");
  if (preamble.version != kVersion || preamble.panel_rows != kPanelRows) {
    return unsupported(fmt::format("{}: was made by another version (format {}, panels of {}); convert the model anew",
                                   path, preamble.version, preamble.panel_rows));
  }
  if (preamble.table_bytes > static_cast<std::uint64_t>(kMaxTableBytes) || preamble.table_bytes > file.size() ||
      preamble.table_offset < sizeof(preamble) || preamble.table_offset != file.size() - preamble.table_bytes) {
    return wrong(fmt::format("its table of {} bytes does not end it", preamble.table_bytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + preamble.table_offset, preamble.table_bytes);
  if (fnv1a(text) != preamble.table_hash) return wrong("its table does not have the checksum that it should");
  LANNER_ASSIGN_OR_RETURN(const Json table, parse_json(text, path, kTableLimits));
  if (!table.is_object()) return wrong("its table is not an object");
  return TableReader(file.first(preamble.table_offset), owner, std::string(path)).read(table);
}

Result<std::unique_ptr<PackedFileWriter>> PackedFileWriter::create(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (descriptor < 0) return io_error(fmt::format("{}: {}", path, std::generic_category().message(errno)));
  std::unique_ptr<PackedFileWriter> writer(new PackedFileWriter(path, descriptor));
  const Preamble empty;
  LANNER_RETURN_IF_ERROR(writer->write_all(std::as_bytes(std::span(&empty, 1))));
  return writer;
}

PackedFileWriter::PackedFileWriter(std::string path, int descriptor)
    : path_(std::move(path)), descriptor_(descriptor) {}

PackedFileWriter::~PackedFileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Status PackedFileWriter::write_all(std::span<const std::byte> bytes) {
  if (!lanner::write_all(descriptor_, bytes)) {
    return io_error(fmt::format("{}: {}", path_, std::generic_category().message(errno)));
  }
  size_ += static_cast<std::int64_t>(bytes.size());
  return {};
}

Status PackedFileWriter::append(std::span<const std::byte> bytes, std::int64_t& offset) {
  constexpr std::array<std::byte, kAlignment> kZeros{};
  const std::int64_t padding = (kAlignment - size_ % kAlignment) % kAlignment;
  LANNER_RETURN_IF_ERROR(write_all(std::span(kZeros).first(static_cast<std::size_t>(padding))));
  offset = size_;
  return write_all(bytes);
}

Status PackedFileWriter::add_matrix(const std::string& name, std::int64_t rows, std::int64_t cols,
                                    const ops::PackedImage& image, std::span<const std::int32_t> input_order) {
  std::int64_t offset = 0;
  LANNER_RETURN_IF_ERROR(append(image.bytes, offset));
  Json entry{{"format", ops::weight_format_name(image.format)},
             {"rows", rows},
             {"cols", cols},
             {"group", image.group},
             {"half_scales", image.half_scales},
             {"has_offsets", image.has_offsets},
             {"zero_points", image.zero_points},
             {"offset", offset},
             {"bytes", image.bytes.size()}};
  if (!input_order.empty()) {
    LANNER_RETURN_IF_ERROR(append(std::as_bytes(input_order), offset));
    entry["input_order"] = offset;
  }
  matrices_[name] = std::move(entry);
  return {};
}

Status PackedFileWriter::add_vector(const std::string& name, std::span<const float> values) {
  std::int64_t offset = 0;
  LANNER_RETURN_IF_ERROR(append(std::as_bytes(values), offset));
  vectors_[name] = {{"size", values.size()}, {"offset", offset}};
  return {};
}

Status PackedFileWriter::finish(const std::set<std::string, std::less<>>& tensors, const std::optional<Json>& config) {
  Json table{{"tensors", tensors}, {"matrices", std::move(matrices_)}, {"vectors", std::move(vectors_)}};
  if (config) table["config"] = *config;
  // A GGUF's texts may be anything; what is no UTF-8 is no name that anyone knows.
  const std::string text = table.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::int64_t offset = 0;
  LANNER_RETURN_IF_ERROR(append(std::as_bytes(std::span(text)), offset));
  Preamble preamble;
  std::ranges::copy(kMagic, preamble.magic.begin());
  preamble.version = kVersion;
  preamble.panel_rows = kPanelRows;
  preamble.table_offset = static_cast<std::uint64_t>(offset);
  preamble.table_bytes = text.size();
  preamble.table_hash = fnv1a(text);
  if (::lseek(descriptor_, 0, SEEK_SET) != 0) return io_error(fmt::format("{}: cannot be rewound", path_));
  LANNER_RETURN_IF_ERROR(write_all(std::as_bytes(std::span(&preamble, 1))));
  const int descriptor = std::exchange(descriptor_, -1);
  const bool synced = ::fsync(descriptor) == 0;
  if (::close(descriptor) != 0 || !synced) {
    return io_error(fmt::format("{}: {}", path_, std::generic_category().message(errno)));
  }
  return {};
}

}  // namespace lanner::model
