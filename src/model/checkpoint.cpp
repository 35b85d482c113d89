#include "model/checkpoint.h"

#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <system_error>

#include "core/mapped_file.h"
#include "model/folder_checkpoint.h"
#include "model/gguf_checkpoint.h"
#include "model/json_reader.h"
#include "model/packed_checkpoint.h"
#include "model/packed_file.h"

namespace lanner::model {
namespace {

/// What to say of a folder without config.json.
Status not_a_model_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  while (!error && entry != std::filesystem::directory_iterator()) {
    if (entry->path().extension() == ".gguf") {
      return not_found(
          fmt::format("{}: holds no config.json; to run its GGUF file name it: {}", folder, entry->path().string()));
    }
    entry.increment(error);
  }
  return not_found(fmt::format("{}: is not a model folder: it holds no config.json", folder));
}

}  // namespace

Result<ModelFormat> model_format(std::string_view name) {
  if (name.empty() || name == "hf" || name == "llama") return ModelFormat::kPlain;
  if (name == "awq") return ModelFormat::kAwq;
  if (name == "gptq") return ModelFormat::kGptq;
  return unsupported(fmt::format("model format '{}': this version reads hf, awq and gptq", printable(name)));
}

Result<std::shared_ptr<const Checkpoint>> open_checkpoint(const std::string& path, const CheckpointOptions& options) {
  std::error_code error;
  const auto type = std::filesystem::status(path, error).type();
  if (type == std::filesystem::file_type::not_found) {
    return not_found(fmt::format("{}: no such file or folder", path));
  }
  if (type == std::filesystem::file_type::directory) {
    if (std::filesystem::exists(std::filesystem::path(path) / kPackedFileName, error)) {
      return open_packed_checkpoint(path, options.format);
    }
    if (!std::filesystem::exists(std::filesystem::path(path) / "config.json", error)) return not_a_model_folder(path);
    return open_folder_checkpoint(path, options.format);
  }
  LANNER_ASSIGN_OR_RETURN(const auto file, MappedFile::open(path));
  const auto bytes = file->bytes();
  if (bytes.size() < 4 || std::memcmp(bytes.data(), "GGUF", 4) != 0) {
    return invalid_argument(fmt::format("{}: is neither a model folder nor a GGUF file", path));
  }
  if (options.format != ModelFormat::kPlain) {
    return invalid_argument(fmt::format("{}: is a GGUF file; a model format of awq or gptq is for folders", path));
  }
  return make_gguf_checkpoint(bytes, file, path);
}

}  // namespace lanner::model
