#include "model/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "core/checked.h"
#include "core/mapped_file.h"
#include "model/json_reader.h"
#include "model/tensor_view.h"

namespace lanner::model {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors and GGUF numbers are read as they lie");

constexpr std::int64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation
constexpr std::int64_t kMaxTensors = 200'000;
constexpr std::size_t kMaxDimensions = 8;
constexpr std::int64_t kMaxIndexBytes = 100'000'000;
constexpr std::size_t kMaxShards = 4096;
// Per tensor: an object, a dtype, two arrays, two offsets and up to eight dimensions.
constexpr JsonLimits kHeaderLimits{kMaxHeaderBytes, 8, kMaxTensors * 14 + 1024};
constexpr JsonLimits kIndexLimits{kMaxIndexBytes, 8, kMaxTensors + 1024};

struct DtypeSize {
  std::string_view name;
  std::int64_t bytes;
};

constexpr std::array<DtypeSize, 16> kDtypes{{{"F64", 8},
                                             {"F32", 4},
                                             {"F16", 2},
                                             {"BF16", 2},
                                             {"I64", 8},
                                             {"I32", 4},
                                             {"I16", 2},
                                             {"I8", 1},
                                             {"U64", 8},
                                             {"U32", 4},
                                             {"U16", 2},
                                             {"U8", 1},
                                             {"BOOL", 1},
                                             {"F8_E4M3", 1},
                                             {"F8_E5M2", 1},
                                             {"F8_E8M0", 1}}};

std::optional<std::int64_t> dtype_size(std::string_view name) {
  const auto* found = std::ranges::find(kDtypes, name, &DtypeSize::name);
  if (found == kDtypes.end()) return std::nullopt;
  return found->bytes;
}

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

Result<std::int64_t> shape_bytes(const JsonFields& fields, std::span<const std::int64_t> shape, std::int64_t element) {
  std::optional<std::int64_t> bytes = element;
  // Zeros last: (2^62, 2^62, 0) has no elements, but a later product of its first two sizes would wrap.
  for (const std::int64_t size : shape) {
    if (bytes && size != 0) bytes = checked_multiply(*bytes, size);
  }
  if (!bytes) return fields.wrong("shape", fmt::format("{} is too large", shape_text(shape)));
  return std::ranges::find(shape, 0) != shape.end() ? 0 : *bytes;
}

Result<SafetensorsTensor> read_tensor(const std::string& name, const Json& entry, std::span<const std::byte> data,
                                      const std::string& where, Extent& extent) {
  if (!entry.is_object()) return corrupt(fmt::format("{}: is not an object", where));
  const JsonFields fields(entry, where);
  SafetensorsTensor tensor;
  tensor.name = name;
  LANNER_ASSIGN_OR_RETURN(tensor.dtype, fields.text("dtype"));
  const std::optional<std::int64_t> element = dtype_size(tensor.dtype);
  if (!element) return fields.not_supported("dtype", fmt::format("'{}' is unknown", printable(tensor.dtype)));
  LANNER_ASSIGN_OR_RETURN(tensor.shape, read_sizes(fields, "shape", kMaxDimensions));
  LANNER_ASSIGN_OR_RETURN(const std::int64_t bytes, shape_bytes(fields, tensor.shape, *element));
  LANNER_ASSIGN_OR_RETURN(extent, read_extent(fields, static_cast<std::int64_t>(data.size())));
  if (extent.end - extent.begin != bytes) {
    return fields.wrong("data_offsets", fmt::format("spans {} bytes, {} of {} are {}", extent.end - extent.begin,
                                                    shape_text(tensor.shape), tensor.dtype, bytes));
  }
  tensor.bytes = data.subspan(static_cast<std::size_t>(extent.begin), static_cast<std::size_t>(bytes));
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

bool is_inside(const std::filesystem::path& file, const std::filesystem::path& folder) {
  const auto [folder_end, file_rest] = std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
  return folder_end == folder.end() && file_rest != file.end();
}

/// The blobs of the Hugging Face cache when `folder` is …/models--NAME/snapshots/REVISION; otherwise empty.
std::filesystem::path cache_blobs(const std::filesystem::path& folder) {
  const std::filesystem::path snapshots = folder.parent_path();
  if (snapshots.filename() != "snapshots") return {};
  return snapshots.parent_path() / "blobs";
}

Result<std::vector<SafetensorsTensor>> open_file(const std::string& path) {
  LANNER_ASSIGN_OR_RETURN(const auto file, MappedFile::open(path));
  return parse_safetensors(file->bytes(), file, path);
}

/// tensor name -> shard file name, both checked as far as they can be without opening the shards.
Result<std::map<std::string, std::string>> read_index(const std::string& path) {
  LANNER_ASSIGN_OR_RETURN(const Json index, read_json_object(path, kIndexLimits));
  const JsonFields fields(index, path);
  LANNER_ASSIGN_OR_RETURN(const auto weight_map, fields.object("weight_map"));
  if (!weight_map) return fields.wrong("weight_map", "is missing");
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    if (!shard.is_string()) {
      return fields.wrong("weight_map", fmt::format("{}: is not a file name", printable(tensor)));
    }
    shards.emplace(tensor, shard.get<std::string>());
  }
  if (shards.empty()) return fields.wrong("weight_map", "is empty");
  return shards;
}

Result<SafetensorsMap> open_shards(const std::string& folder, const std::string& index_path) {
  LANNER_ASSIGN_OR_RETURN(const auto shard_of, read_index(index_path));
  std::set<std::string> names;
  for (const auto& [tensor, shard] : shard_of) names.insert(shard);
  if (names.size() > kMaxShards) {
    return corrupt(fmt::format("{}: names {} shards, more than {}", index_path, names.size(), kMaxShards));
  }
  SafetensorsMap tensors;
  for (const std::string& name : names) {
    Result<std::string> path = model_file(folder, name);
    if (!path.ok()) return with_context(path.status(), index_path);
    LANNER_ASSIGN_OR_RETURN(auto shard, open_file(*path));
    for (SafetensorsTensor& tensor : shard) {
      const auto wanted = shard_of.find(tensor.name);
      if (wanted == shard_of.end() || wanted->second != name) continue;  // leftovers do not count
      std::string key = tensor.name;
      tensors.emplace(std::move(key), std::move(tensor));
    }
  }
  for (const auto& [tensor, shard] : shard_of) {
    if (!tensors.contains(tensor)) {
      return corrupt(fmt::format("{}: weight_map: {} is not in {}", index_path, printable(tensor), printable(shard)));
    }
  }
  return tensors;
}

/// Says what a folder holds in place of safetensors.
Status no_weights(const std::string& folder) {
  std::error_code error;
  for (const char* other : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (std::filesystem::exists(std::filesystem::path(folder) / other, error)) {
      return unsupported(fmt::format("{}: holds {}; this build reads weights from safetensors only", folder, other));
    }
  }
  return not_found(fmt::format("{}: neither model.safetensors nor model.safetensors.index.json is there", folder));
}

}  // namespace

std::optional<ops::WeightFormat> safetensors_format(std::string_view dtype) {
  if (dtype == "F32") return ops::WeightFormat::kF32;
  if (dtype == "F16") return ops::WeightFormat::kF16;
  if (dtype == "BF16") return ops::WeightFormat::kBF16;
  return std::nullopt;
}

Result<std::vector<SafetensorsTensor>> parse_safetensors(std::span<const std::byte> file,
                                                         const std::shared_ptr<const void>& owner,
                                                         std::string_view path) {
  std::size_t data_begin = 0;
  LANNER_ASSIGN_OR_RETURN(const Json header, read_header(file, path, data_begin));
  if (!header.is_object()) return corrupt(fmt::format("{}: header is not a JSON object", path));
  if (static_cast<std::int64_t>(header.size()) > kMaxTensors) {
    return resource_exhausted(fmt::format("{}: {} tensors, more than {}", path, header.size(), kMaxTensors));
  }
  const auto data = file.subspan(data_begin);
  std::vector<SafetensorsTensor> tensors;
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

Result<SafetensorsMap> open_safetensors_folder(const std::string& folder) {
  Result<std::string> index = model_file(folder, "model.safetensors.index.json");
  if (index.ok()) return open_shards(folder, *index);
  if (index.status().code() != StatusCode::kNotFound) return index.status();
  Result<std::string> single = model_file(folder, "model.safetensors");
  if (!single.ok()) return single.status().code() == StatusCode::kNotFound ? no_weights(folder) : single.status();
  LANNER_ASSIGN_OR_RETURN(auto tensors, open_file(*single));
  SafetensorsMap result;
  for (SafetensorsTensor& tensor : tensors) {
    std::string key = tensor.name;
    result.emplace(std::move(key), std::move(tensor));
  }
  return result;
}

Result<std::string> model_file(const std::string& folder, std::string_view name) {
  if (name.empty() || name.find('/') != std::string_view::npos || name.find("..") != std::string_view::npos ||
      name.find('\0') != std::string_view::npos) {
    return corrupt(fmt::format("'{}' is not a plain file name", printable(name)));
  }
  const std::filesystem::path path = std::filesystem::path(folder) / name;
  std::error_code error;
  const std::filesystem::path real_folder = std::filesystem::canonical(folder, error);
  if (error) return not_found(fmt::format("{}: {}", folder, error.message()));
  const std::filesystem::path real_file = std::filesystem::canonical(path, error);
  if (error == std::errc::no_such_file_or_directory) return not_found(fmt::format("{}: is not there", path.string()));
  if (error) return io_error(fmt::format("{}: {}", path.string(), error.message()));
  const std::filesystem::path blobs = cache_blobs(real_folder);
  if (!is_inside(real_file, real_folder) && (blobs.empty() || !is_inside(real_file, blobs))) {
    return corrupt(fmt::format("{}: links to {}, outside the model folder", path.string(), real_file.string()));
  }
  return path.string();
}

}  // namespace lanner::model
