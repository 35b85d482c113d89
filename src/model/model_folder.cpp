#include "model/model_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "core/mapped_file.h"
#include "model/json_reader.h"
#include "model/safetensors.h"
#include "model/torch_file.h"

namespace lanner::model {
namespace {

constexpr JsonLimits kObjectLimits{16 << 20, 32, 1 << 20};
constexpr std::int64_t kMaxIndexBytes = 100'000'000;
constexpr std::size_t kMaxShards = 4096;
constexpr JsonLimits kIndexLimits{kMaxIndexBytes, 8, kMaxTensors + 1024};

using ParseFile = Result<std::vector<StoredTensor>> (*)(std::span<const std::byte> file,
                                                        const std::shared_ptr<const void>& owner,
                                                        std::string_view path);

/// A way to keep weights in a folder: one file, or shards with an index.
struct Container {
  std::string_view single;
  std::string_view index;
  ParseFile parse;
};

constexpr Container kSafetensors{"model.safetensors", "model.safetensors.index.json", parse_safetensors};
constexpr Container kTorch{"pytorch_model.bin", "pytorch_model.bin.index.json", parse_torch_file};

bool is_inside(const std::filesystem::path& file, const std::filesystem::path& folder) {
  const auto [folder_end, file_rest] = std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
  return folder_end == folder.end() && file_rest != file.end();
}

/// Where the files of `folder` may lie besides: when it is MODEL/snapshots/REVISION, in MODEL/blobs; and when MODEL is
/// CACHE/models--NAME, as in a Hugging Face cache, also in CACHE/blobs, which its models share. Otherwise empty.
std::vector<std::filesystem::path> cache_blobs(const std::filesystem::path& folder) {
  const std::filesystem::path snapshots = folder.parent_path();
  const std::filesystem::path model = snapshots.parent_path();
  if (snapshots.filename() != "snapshots") return {};
  if (!model.filename().string().starts_with("models--")) return {model / "blobs"};
  return {model / "blobs", model.parent_path() / "blobs"};
}

Result<std::vector<StoredTensor>> open_file(const std::string& path, ParseFile parse) {
  LANNER_ASSIGN_OR_RETURN(const auto file, MappedFile::open(path));
  return parse(file->bytes(), file, path);
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

Result<TensorMap> open_shards(const std::string& folder, const std::string& index_path, ParseFile parse) {
  LANNER_ASSIGN_OR_RETURN(const auto shard_of, read_index(index_path));
  std::set<std::string> names;
  for (const auto& [tensor, shard] : shard_of) names.insert(shard);
  if (names.size() > kMaxShards) {
    return corrupt(fmt::format("{}: names {} shards, more than {}", index_path, names.size(), kMaxShards));
  }
  TensorMap tensors;
  for (const std::string& name : names) {
    Result<std::string> path = model_file(folder, name);
    if (!path.ok()) return with_context(path.status(), index_path);
    LANNER_ASSIGN_OR_RETURN(auto shard, open_file(*path, parse));
    for (StoredTensor& tensor : shard) {
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

/// kNotFound when the folder holds nothing of this kind.
Result<TensorMap> open_container(const std::string& folder, const Container& container) {
  Result<std::string> index = model_file(folder, container.index);
  if (index.ok()) return open_shards(folder, *index, container.parse);
  if (index.status().code() != StatusCode::kNotFound) return index.status();
  LANNER_ASSIGN_OR_RETURN(const std::string single, model_file(folder, container.single));
  LANNER_ASSIGN_OR_RETURN(auto tensors, open_file(single, container.parse));
  TensorMap result;
  for (StoredTensor& tensor : tensors) {
    std::string key = tensor.name;
    result.emplace(std::move(key), std::move(tensor));
  }
  return result;
}

bool is_there(const std::string& folder, const Container& container) {
  const auto found = [&](std::string_view name) {
    const Result<std::string> path = model_file(folder, name);
    return path.ok() || path.status().code() != StatusCode::kNotFound;
  };
  return found(container.index) || found(container.single);
}

}  // namespace

Result<TensorMap> open_model_tensors(const std::string& folder) {
  for (const Container& container : {kSafetensors, kTorch}) {
    if (is_there(folder, container)) return open_container(folder, container);
  }
  return not_found(fmt::format("{}: holds no weights: none of {}, {}, {} and {} is there", folder, kSafetensors.single,
                               kSafetensors.index, kTorch.single, kTorch.index));
}

Result<Json> read_folder_object(const std::string& folder, std::string_view name) {
  LANNER_ASSIGN_OR_RETURN(const std::string path, model_file(folder, name));
  return read_json_object(path, kObjectLimits);
}

Result<Json> read_optional_object(const std::string& folder, std::string_view name) {
  Result<Json> object = read_folder_object(folder, name);
  if (!object.ok() && object.status().code() == StatusCode::kNotFound) return Json::object();
  return object;
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
  const std::vector<std::filesystem::path> blobs = cache_blobs(real_folder);
  const bool in_blobs = std::ranges::any_of(blobs, [&](const auto& place) { return is_inside(real_file, place); });
  if (!is_inside(real_file, real_folder) && !in_blobs) {
    return corrupt(fmt::format("{}: links to {}, outside the model folder", path.string(), real_file.string()));
  }
  return path.string();
}

}  // namespace lanner::model
