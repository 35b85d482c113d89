#include "model/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "model/json_reader.h"
#include "model/tensor_view.h"

namespace lanner::model {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors and GGUF numbers are read as they lie");

constexpr std::int64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation
// Per tensor: an object, a dtype, two arrays, two offsets and up to eight dimensions.
constexpr JsonLimits kHeaderLimits{kMaxHeaderBytes, 8, kMaxTensors * 14 + 1024};

struct Extent {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

Result<std::vector<std::int64_t>> read_sizes(const JsonFields& fields, std::string_view key, std::size_t max_count) {
  const Json* value = fields.find(key);
  if (value == nullptr || !value->is_array()) return fields.wrong(key, "is not a list");
  if (value->size() > max_count) return fields.wrong(key, fmt::format("has {} entries", value->size()));
  std::vector<std::int64_t> sizes;
  for (const Json& entry : *value) {
    if (!entry.is_number_unsigned() || entry.get<std::uint64_t>() > std::uint64_t{INT64_MAX}) {
      return fields.wrong(key, "has an entry that is not a size");
    }
    sizes.push_back(static_cast<std::int64_t>(entry.get<std::uint64_t>()));
  }
  return sizes;
}

Result<Extent> read_extent(const JsonFields& fields, std::int64_t data_bytes) {
  LANNER_ASSIGN_OR_RETURN(const auto offsets, read_sizes(fields, "data_offsets", 2));
  if (offsets.size() != 2) return fields.wrong("data_offsets", "is not a pair");
  const Extent extent{offsets[0], offsets[1]};
  if (extent.begin > extent.end) return fields.wrong("data_offsets", "ends before it begins");
  if (extent.end > data_bytes) {
    return fields.wrong("data_offsets",
                        fmt::format("ends at {}, the file holds {} bytes of tensors", extent.end, data_bytes));
  }
  return extent;
}

Result<StoredTensor> read_tensor(const std::string& name, const Json& entry, std::span<const std::byte> data,
                                 const std::string& where, Extent& extent) {
  if (!entry.is_object()) return corrupt(fmt::format("{}: is not an object", where));
  const JsonFields fields(entry, where);
  StoredTensor tensor;
  tensor.name = name;
  LANNER_ASSIGN_OR_RETURN(tensor.dtype, fields.text("dtype"));
  const std::optional<std::int64_t> element = dtype_bytes(tensor.dtype);
  if (!element) return fields.not_supported("dtype", fmt::format("'{}' is unknown", printable(tensor.dtype)));
  LANNER_ASSIGN_OR_RETURN(tensor.shape, read_sizes(fields, "shape", kMaxDimensions));
  const std::optional<std::int64_t> bytes = bytes_of_shape(tensor.shape, *element);
  if (!bytes) return fields.wrong("shape", fmt::format("{} is too large", shape_text(tensor.shape)));
  LANNER_ASSIGN_OR_RETURN(extent, read_extent(fields, static_cast<std::int64_t>(data.size())));
  if (extent.end - extent.begin != *bytes) {
    return fields.wrong("data_offsets", fmt::format("spans {} bytes, {} of {} are {}", extent.end - extent.begin,
                                                    shape_text(tensor.shape), tensor.dtype, *bytes));
  }
  tensor.bytes = data.subspan(static_cast<std::size_t>(extent.begin), static_cast<std::size_t>(*bytes));
  return tensor;
}

Status check_metadata(const Json& metadata, std::string_view path) {
  if (!metadata.is_object()) return corrupt(fmt::format("{}: __metadata__: is not an object", path));
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) {
      return corrupt(fmt::format("{}: __metadata__: {}: is not a string", path, printable(key)));
    }
  }
  return {};
}

/// Every byte belongs to exactly one tensor.
Status check_contiguous(std::vector<Extent> extents, std::int64_t data_bytes, std::string_view path) {
  std::ranges::sort(
      extents, [](const Extent& a, const Extent& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  std::int64_t covered = 0;
  for (const Extent& extent : extents) {
    if (extent.begin != covered) {
      return corrupt(fmt::format("{}: tensors {} at byte {} of the data", path,
                                 extent.begin < covered ? "overlap" : "leave a hole", std::min(covered, extent.begin)));
    }
    covered = extent.end;
  }
  if (covered != data_bytes) {
    return corrupt(fmt::format("{}: tensors end at byte {} of {}", path, covered, data_bytes));
  }
  return {};
}

Result<Json> read_header(std::span<const std::byte> file, std::string_view path, std::size_t& data_begin) {
  std::uint64_t length = 0;
  if (file.size() < sizeof(length)) return corrupt(fmt::format("{}: too short for a safetensors file", path));
  std::memcpy(&length, file.data(), sizeof(length));
  if (length == 0 || length > static_cast<std::uint64_t>(kMaxHeaderBytes)) {
    return corrupt(fmt::format("{}: header of {} bytes, allowed are 1 to {}", path, length, kMaxHeaderBytes));
  }
  if (length > file.size() - sizeof(length)) {
    return corrupt(fmt::format("{}: header of {} bytes in a file of {}", path, length, file.size()));
  }
  data_begin = sizeof(length) + static_cast<std::size_t>(length);
  const auto* text = reinterpret_cast<const char*>(file.data()) + sizeof(length);
  if (*text != '{') return corrupt(fmt::format("{}: header does not begin with '{{'", path));
  return parse_json({text, static_cast<std::size_t>(length)}, fmt::format("{}: header", path), kHeaderLimits);
}

}  // namespace

Result<std::vector<StoredTensor>> parse_safetensors(std::span<const std::byte> file,
                                                    const std::shared_ptr<const void>& owner, std::string_view path) {
  std::size_t data_begin = 0;
  LANNER_ASSIGN_OR_RETURN(const Json header, read_header(file, path, data_begin));
  if (!header.is_object()) return corrupt(fmt::format("{}: header is not a JSON object", path));
  if (static_cast<std::int64_t>(header.size()) > kMaxTensors) {
    return resource_exhausted(fmt::format("{}: {} tensors, more than {}", path, header.size(), kMaxTensors));
  }
  const auto data = file.subspan(data_begin);
  std::vector<StoredTensor> tensors;
  std::vector<Extent> extents;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      LANNER_RETURN_IF_ERROR(check_metadata(entry, path));
      continue;
    }
    Extent extent;
    LANNER_ASSIGN_OR_RETURN(auto tensor,
                            read_tensor(name, entry, data, fmt::format("{}: {}", path, printable(name)), extent));
    tensor.owner = owner;
    tensors.push_back(std::move(tensor));
    extents.push_back(extent);
  }
  LANNER_RETURN_IF_ERROR(check_contiguous(std::move(extents), static_cast<std::int64_t>(data.size()), path));
  return tensors;
}

}  // namespace lanner::model
