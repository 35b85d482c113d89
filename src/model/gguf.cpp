#include "model/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>

#include "core/checked.h"
#include "model/json_reader.h"
#include "model/tensor_view.h"

namespace lanner::model {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors and GGUF numbers are read as they lie");

constexpr std::uint64_t kMaxMetadata = 65'536;
constexpr std::uint64_t kMaxTensors = 200'000;
constexpr std::uint64_t kMaxKeyBytes = 65'535;  // the format's own limit
constexpr std::uint64_t kMaxTensorNameBytes = 256;
constexpr std::uint64_t kMaxStringBytes = 16 << 20;
constexpr std::uint32_t kMaxDimensions = 4;
constexpr std::uint64_t kMaxAlignment = 65'536;
constexpr int kMaxArrayDepth = 4;

// From ggml.h and ggml-common.h. Types that cannot be computed with are here so that their extents are checked too
// and their name can be told.
constexpr std::array<GgmlType, 32> kTypes{{
    {ggml::kF32, "F32", 1, 4},
    {ggml::kF16, "F16", 1, 2},
    {ggml::kQ4_0, "Q4_0", 32, 18},
    {ggml::kQ4_1, "Q4_1", 32, 20},
    {ggml::kQ5_0, "Q5_0", 32, 22},
    {ggml::kQ5_1, "Q5_1", 32, 24},
    {ggml::kQ8_0, "Q8_0", 32, 34},
    {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},
    {ggml::kQ4_K, "Q4_K", 256, 144},
    {ggml::kQ5_K, "Q5_K", 256, 176},
    {ggml::kQ6_K, "Q6_K", 256, 210},
    {15, "Q8_K", 256, 292},
    {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98},
    {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},
    {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136},
    {24, "I8", 1, 1},
    {25, "I16", 1, 2},
    {26, "I32", 1, 4},
    {27, "I64", 1, 8},
    {28, "F64", 1, 8},
    {29, "IQ1_M", 256, 56},
    {ggml::kBF16, "BF16", 1, 2},
    {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},
    {39, "MXFP4", 32, 17},
    {40, "NVFP4", 64, 36},
}};

std::optional<GgmlType> find_type(std::uint32_t id) {
  const auto* found = std::ranges::find(kTypes, id, &GgmlType::id);
  if (found == kTypes.end()) return std::nullopt;
  return *found;
}

/// Bytes of a number or truth value; 0 for strings, arrays and unknown kinds.
std::size_t scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool: return 1;
    case GgufType::kU16:
    case GgufType::kI16: return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32: return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64: return 8;
    case GgufType::kString:
    case GgufType::kArray: return 0;
  }
  return 0;
}

/// Walks the file; every read is checked against what is left of it.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string_view where) : bytes_(bytes), where_(where) {}

  std::size_t position() const { return position_; }
  std::size_t left() const { return bytes_.size() - position_; }
  std::span<const std::byte> since(std::size_t begin) const { return bytes_.subspan(begin, position_ - begin); }
  Status ends() const { return corrupt(fmt::format("{}: file ends at byte {}", where_, bytes_.size())); }

  Status skip(std::uint64_t count) {
    if (count > left()) return ends();
    position_ += static_cast<std::size_t>(count);
    return {};
  }

  template <typename T>
  Result<T> number() {
    T value{};
    if (sizeof(T) > left()) return ends();
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  Result<std::string_view> string(std::uint64_t max_bytes) {
    LANNER_ASSIGN_OR_RETURN(const auto length, number<std::uint64_t>());
    if (length > max_bytes) {
      return corrupt(fmt::format("{}: string of {} bytes, allowed are {}", where_, length, max_bytes));
    }
    if (length > left()) return ends();
    const auto* text = reinterpret_cast<const char*>(bytes_.data() + position_);
    position_ += static_cast<std::size_t>(length);
    return std::string_view(text, static_cast<std::size_t>(length));
  }

  void set_where(std::string where) { where_ = std::move(where); }
  const std::string& where() const { return where_; }

 private:
  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  std::string where_;
};

Result<GgufArray> read_array(Reader& reader, int depth) {
  if (depth > kMaxArrayDepth) return corrupt(fmt::format("{}: arrays nest too deep", reader.where()));
  LANNER_ASSIGN_OR_RETURN(const auto element, reader.number<std::uint32_t>());
  LANNER_ASSIGN_OR_RETURN(const auto count, reader.number<std::uint64_t>());
  GgufArray array;
  array.element = static_cast<GgufType>(element);
  const std::size_t size = scalar_bytes(array.element);
  // An element takes a byte at least: this bounds the loops below by the length of the file.
  if (count > reader.left() / std::max<std::size_t>(size, 1)) return reader.ends();
  array.count = static_cast<std::int64_t>(count);
  const std::size_t begin = reader.position();
  if (size > 0) {
    LANNER_RETURN_IF_ERROR(reader.skip(count * size));
  } else if (array.element == GgufType::kString) {
    for (std::uint64_t i = 0; i < count; ++i) LANNER_RETURN_IF_ERROR(reader.string(kMaxStringBytes).status());
  } else if (array.element == GgufType::kArray) {
    for (std::uint64_t i = 0; i < count; ++i) LANNER_RETURN_IF_ERROR(read_array(reader, depth + 1).status());
  } else {
    return corrupt(fmt::format("{}: array of unknown kind {}", reader.where(), element));
  }
  array.bytes = reader.since(begin);
  return array;
}

template <typename T, typename Wide>
Result<GgufValue> read_scalar(Reader& reader, GgufType type) {
  LANNER_ASSIGN_OR_RETURN(const T value, reader.number<T>());
  return GgufValue{type, static_cast<Wide>(value)};
}

Result<GgufValue> read_value(Reader& reader) {
  LANNER_ASSIGN_OR_RETURN(const auto id, reader.number<std::uint32_t>());
  const auto type = static_cast<GgufType>(id);
  switch (type) {
    case GgufType::kU8: return read_scalar<std::uint8_t, std::uint64_t>(reader, type);
    case GgufType::kI8: return read_scalar<std::int8_t, std::int64_t>(reader, type);
    case GgufType::kU16: return read_scalar<std::uint16_t, std::uint64_t>(reader, type);
    case GgufType::kI16: return read_scalar<std::int16_t, std::int64_t>(reader, type);
    case GgufType::kU32: return read_scalar<std::uint32_t, std::uint64_t>(reader, type);
    case GgufType::kI32: return read_scalar<std::int32_t, std::int64_t>(reader, type);
    case GgufType::kU64: return read_scalar<std::uint64_t, std::uint64_t>(reader, type);
    case GgufType::kI64: return read_scalar<std::int64_t, std::int64_t>(reader, type);
    case GgufType::kF32: return read_scalar<float, double>(reader, type);
    case GgufType::kF64: return read_scalar<double, double>(reader, type);
    case GgufType::kBool: {
      LANNER_ASSIGN_OR_RETURN(const auto value, reader.number<std::uint8_t>());
      if (value > 1) return corrupt(fmt::format("{}: truth value {}", reader.where(), value));
      return GgufValue{type, value == 1};
    }
    case GgufType::kString: {
      LANNER_ASSIGN_OR_RETURN(const auto value, reader.string(kMaxStringBytes));
      return GgufValue{type, value};
    }
    case GgufType::kArray: {
      LANNER_ASSIGN_OR_RETURN(const auto value, read_array(reader, 1));
      return GgufValue{type, value};
    }
  }
  return corrupt(fmt::format("{}: value of unknown kind {}", reader.where(), id));
}

Status read_metadata(Reader& reader, std::uint64_t count, Gguf& gguf) {
  for (std::uint64_t i = 0; i < count; ++i) {
    reader.set_where(fmt::format("{}: metadata {}", gguf.path, i));
    LANNER_ASSIGN_OR_RETURN(const auto key, reader.string(kMaxKeyBytes));
    if (key.empty()) return corrupt(fmt::format("{}: has no name", reader.where()));
    reader.set_where(fmt::format("{}: {}", gguf.path, printable(key)));
    LANNER_ASSIGN_OR_RETURN(const auto value, read_value(reader));
    if (!gguf.metadata.emplace(std::string(key), value).second) {
      return corrupt(fmt::format("{}: is there twice", reader.where()));
    }
  }
  return {};
}

/// A row of the tensor table, before its place in the file is known.
struct TableRow {
  std::string name;
  GgufTensor tensor;
  std::uint64_t offset = 0;  // from the start of the data
  std::int64_t bytes = 0;
};

Result<std::int64_t> extent_bytes(const GgufTensor& tensor, const std::string& where) {
  const std::int64_t row = tensor.shape.back();
  if (row % tensor.type.block_elements != 0) {
    return corrupt(fmt::format("{}: rows of {} are not whole blocks of {} {}", where, row, tensor.type.name,
                               tensor.type.block_elements));
  }
  std::optional<std::int64_t> bytes = checked_multiply(row / tensor.type.block_elements, tensor.type.block_bytes);
  std::optional<std::int64_t> elements = row;  // unpacked code counts these
  for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) {
    if (bytes) bytes = checked_multiply(*bytes, tensor.shape[i]);
    if (elements) elements = checked_multiply(*elements, tensor.shape[i]);
  }
  if (!bytes || !elements) return corrupt(fmt::format("{}: shape {} is too large", where, shape_text(tensor.shape)));
  return *bytes;
}

Result<TableRow> read_table_row(Reader& reader, const std::string& path, std::uint64_t index) {
  TableRow row;
  reader.set_where(fmt::format("{}: tensor {}", path, index));
  LANNER_ASSIGN_OR_RETURN(const auto name, reader.string(kMaxTensorNameBytes));
  if (name.empty()) return corrupt(fmt::format("{}: has no name", reader.where()));
  row.name = std::string(name);
  reader.set_where(fmt::format("{}: {}", path, printable(name)));
  LANNER_ASSIGN_OR_RETURN(const auto dimensions, reader.number<std::uint32_t>());
  if (dimensions < 1 || dimensions > kMaxDimensions) {
    return corrupt(
        fmt::format("{}: has {} dimensions, allowed are 1 to {}", reader.where(), dimensions, kMaxDimensions));
  }
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    LANNER_ASSIGN_OR_RETURN(const auto size, reader.number<std::uint64_t>());
    if (size < 1 || size > std::uint64_t{INT64_MAX}) {
      return corrupt(fmt::format("{}: has a dimension of {}", reader.where(), size));
    }
    row.tensor.shape.push_back(static_cast<std::int64_t>(size));
  }
  std::ranges::reverse(row.tensor.shape);
  LANNER_ASSIGN_OR_RETURN(const auto type_id, reader.number<std::uint32_t>());
  const std::optional<GgmlType> type = find_type(type_id);
  if (!type) return unsupported(fmt::format("{}: tensor type {} is unknown", reader.where(), type_id));
  row.tensor.type = *type;
  LANNER_ASSIGN_OR_RETURN(row.offset, reader.number<std::uint64_t>());
  LANNER_ASSIGN_OR_RETURN(row.bytes, extent_bytes(row.tensor, reader.where()));
  return row;
}

Result<std::uint64_t> read_alignment(const Gguf& gguf) {
  const auto found = gguf.metadata.find("general.alignment");
  if (found == gguf.metadata.end()) return std::uint64_t{32};
  const auto* value = std::get_if<std::uint64_t>(&found->second.value);
  if (value == nullptr || !std::has_single_bit(*value) || *value > kMaxAlignment) {
    return corrupt(fmt::format("{}: general.alignment: is not a power of two up to {}", gguf.path, kMaxAlignment));
  }
  return *value;
}

/// Cuts the tensors out of the data, which is the rest of the file.
Status place_tensors(std::vector<TableRow> rows, std::span<const std::byte> data, std::uint64_t alignment, Gguf& gguf) {
  std::ranges::sort(rows, {}, &TableRow::offset);
  std::uint64_t covered = 0;
  for (TableRow& row : rows) {
    const std::string where = fmt::format("{}: {}", gguf.path, printable(row.name));
    const auto bytes = static_cast<std::uint64_t>(row.bytes);
    if (row.offset % alignment != 0) {
      return corrupt(fmt::format("{}: offset {} is not a multiple of {}", where, row.offset, alignment));
    }
    if (row.offset > data.size() || bytes > data.size() - row.offset) {
      return corrupt(
          fmt::format("{}: {} bytes at {} reach past the {} bytes of data", where, bytes, row.offset, data.size()));
    }
    if (row.offset < covered) return corrupt(fmt::format("{}: overlaps another tensor", where));
    covered = row.offset + bytes;
    row.tensor.bytes = data.subspan(static_cast<std::size_t>(row.offset), static_cast<std::size_t>(bytes));
    if (!gguf.tensors.emplace(std::move(row.name), std::move(row.tensor)).second) {
      return corrupt(fmt::format("{}: is there twice", where));
    }
  }
  return {};
}

Result<std::uint32_t> read_version(Reader& reader, std::string_view path) {
  LANNER_ASSIGN_OR_RETURN(const auto magic, reader.number<std::uint32_t>());
  if (magic != 0x46554747U) return corrupt(fmt::format("{}: is not a GGUF file", path));
  LANNER_ASSIGN_OR_RETURN(const auto version, reader.number<std::uint32_t>());
  if (version != 0 && (version & 0xFFFFU) == 0) {
    return unsupported(fmt::format("{}: is a big-endian GGUF file; convert it to little-endian", path));
  }
  if (version != 2 && version != 3) {
    return unsupported(fmt::format("{}: GGUF version {}; this build reads versions 2 and 3", path, version));
  }
  return version;
}

template <typename T>
void append_integers(const GgufArray& array, std::vector<std::int64_t>& out) {
  for (std::int64_t i = 0; i < array.count; ++i) {
    T value{};
    std::memcpy(&value, array.bytes.data() + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
    out.push_back(static_cast<std::int64_t>(value));
  }
}

}  // namespace

Result<Gguf> parse_gguf(std::span<const std::byte> file, std::string_view path) {
  Gguf gguf;
  gguf.path = path;
  Reader reader(file, path);
  LANNER_ASSIGN_OR_RETURN(gguf.version, read_version(reader, path));
  LANNER_ASSIGN_OR_RETURN(const auto tensor_count, reader.number<std::uint64_t>());
  LANNER_ASSIGN_OR_RETURN(const auto metadata_count, reader.number<std::uint64_t>());
  if (tensor_count > kMaxTensors || metadata_count > kMaxMetadata) {
    return corrupt(fmt::format("{}: {} tensors and {} metadata entries, allowed are {} and {}", path, tensor_count,
                               metadata_count, kMaxTensors, kMaxMetadata));
  }
  const std::size_t metadata_begin = reader.position();
  LANNER_RETURN_IF_ERROR(read_metadata(reader, metadata_count, gguf));
  gguf.metadata_bytes = reader.since(metadata_begin);
  LANNER_ASSIGN_OR_RETURN(const auto alignment, read_alignment(gguf));
  std::vector<TableRow> rows;
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    LANNER_ASSIGN_OR_RETURN(auto row, read_table_row(reader, gguf.path, i));
    rows.push_back(std::move(row));
  }
  if (rows.empty()) return gguf;
  const std::uint64_t padding = (alignment - reader.position() % alignment) % alignment;
  reader.set_where(gguf.path);
  LANNER_RETURN_IF_ERROR(reader.skip(padding));
  LANNER_RETURN_IF_ERROR(place_tensors(std::move(rows), file.subspan(reader.position()), alignment, gguf));
  return gguf;
}

Result<std::vector<std::string_view>> gguf_strings(const GgufArray& array, std::string_view where) {
  if (array.element != GgufType::kString) return corrupt(fmt::format("{}: is not an array of strings", where));
  Reader reader(array.bytes, where);
  std::vector<std::string_view> strings;
  strings.reserve(static_cast<std::size_t>(array.count));
  for (std::int64_t i = 0; i < array.count; ++i) {
    LANNER_ASSIGN_OR_RETURN(const auto text, reader.string(kMaxStringBytes));
    strings.push_back(text);
  }
  return strings;
}

Result<std::vector<std::int64_t>> gguf_integers(const GgufArray& array, std::string_view where) {
  std::vector<std::int64_t> out;
  switch (array.element) {
    case GgufType::kU8: append_integers<std::uint8_t>(array, out); break;
    case GgufType::kI8: append_integers<std::int8_t>(array, out); break;
    case GgufType::kU16: append_integers<std::uint16_t>(array, out); break;
    case GgufType::kI16: append_integers<std::int16_t>(array, out); break;
    case GgufType::kU32: append_integers<std::uint32_t>(array, out); break;
    case GgufType::kI32: append_integers<std::int32_t>(array, out); break;
    case GgufType::kI64: append_integers<std::int64_t>(array, out); break;
    case GgufType::kU64:
    case GgufType::kF32:
    case GgufType::kF64:
    case GgufType::kBool:
    case GgufType::kString:
    case GgufType::kArray: return corrupt(fmt::format("{}: is not an array of integers", where));
  }
  return out;
}

}  // namespace lanner::model
