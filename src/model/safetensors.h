#pragma once
// The safetensors container: eight bytes of header length, a JSON header, then the tensors' bytes.
//
// A file is accepted only when its header accounts for every byte after it, once: shapes multiply to the extents,
// extents follow one another from 0 to the end of the file (Trail of Bits' audit of the format, 2023, shows
// what lesser readers let pass). Views stay valid as long as any copy of their `owner` lives.
//
// Format: https://huggingface.co/docs/safetensors

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "ops/weight_source.h"

namespace lanner::model {

struct SafetensorsTensor {
  std::string name;
  std::string dtype;  // as the file spells it, such as BF16
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

/// The dense format of a dtype that can be computed with: F32, F16, BF16.
std::optional<ops::WeightFormat> safetensors_format(std::string_view dtype);

/// All tensors of one file, in the order of its header.
Result<std::vector<SafetensorsTensor>> parse_safetensors(std::span<const std::byte> file,
                                                         const std::shared_ptr<const void>& owner,
                                                         std::string_view path);

using SafetensorsMap = std::map<std::string, SafetensorsTensor, std::less<>>;

/// The tensors of a model folder: model.safetensors, or the shards that model.safetensors.index.json names.
Result<SafetensorsMap> open_safetensors_folder(const std::string& folder);

/// The path of `name` in a model folder. kCorrupt for a name with '/' or '..', or a link that leaves the folder
/// for anywhere but the blobs of the Hugging Face cache that holds it; kNotFound when there is no such file.
Result<std::string> model_file(const std::string& folder, std::string_view name);

}  // namespace lanner::model
