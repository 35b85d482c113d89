#include "model/folder_checkpoint.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "core/mapped_file.h"
#include "model/folder_tokenizer.h"
#include "model/group_quantization.h"
#include "model/json_reader.h"
#include "model/model_folder.h"
#include "model/row_quantization.h"
#include "model/stored_tensor.h"
#include "model/tensor_view.h"

namespace lanner::model {
namespace {

constexpr std::int64_t kMaxTemplateBytes = 1 << 20;

/// Everything beside the weights that opening reads.
struct FolderFiles {
  Json config;
  Json generation_config = Json::object();
  std::optional<std::string> chat_template;
  SpecialTokens special_tokens;
};

class FolderCheckpoint final : public Checkpoint {
 public:
  FolderCheckpoint(std::string folder, FolderFiles files, TensorMap tensors, const GroupQuantization& quantization)
      : folder_(std::move(folder)),
        files_(std::move(files)),
        tensors_(std::move(tensors)),
        quantization_(quantization) {}

  CheckpointKind kind() const override { return CheckpointKind::kFolder; }
  const std::string& path() const override { return folder_; }
  const Json& config() const override { return files_.config; }
  const Json& generation_config() const override { return files_.generation_config; }

  bool has_tensor(std::string_view name) const override { return tensors_.contains(name) || is_quantized(name); }

  std::int64_t tensor_bytes() const override {
    std::int64_t bytes = 0;
    for (const auto& [name, tensor] : tensors_) bytes += static_cast<std::int64_t>(tensor.bytes.size());
    return bytes;
  }

  Status check_matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    if (is_quantized(name)) return find_packed(name, rows, cols).status();
    if (has_rows_of_codes(name)) return find_row_quantized(tensors_, name, rows, cols, folder_).status();
    return find(name, std::array{rows, cols}).status();
  }

  Status check_vector(std::string_view name, std::int64_t size) const override {
    return find(name, std::array{size}).status();
  }

  Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const override {
    if (is_quantized(name)) {
      LANNER_ASSIGN_OR_RETURN(const QuantizedTensors packed, find_packed(name, rows, cols));
      return unpack_quantized(packed, quantization_, folder_);
    }
    if (has_rows_of_codes(name)) {
      LANNER_ASSIGN_OR_RETURN(const RowQuantizedTensors codes, find_row_quantized(tensors_, name, rows, cols, folder_));
      return unpack_row_quantized(codes, folder_);
    }
    LANNER_ASSIGN_OR_RETURN(const StoredTensor* tensor, find(name, std::array{rows, cols}));
    return dense_matrix(*dense_format(tensor->dtype), tensor->bytes.data(), rows, cols, tensor->owner);
  }

  Result<std::vector<float>> vector(std::string_view name, std::int64_t size) const override {
    LANNER_ASSIGN_OR_RETURN(const StoredTensor* tensor, find(name, std::array{size}));
    return widen(where(name), *dense_format(tensor->dtype), tensor->bytes.data(), size);
  }

  Result<std::shared_ptr<const Tokenizer>> tokenizer() const override {
    return open_folder_tokenizer(folder_, files_.config);
  }

  std::optional<std::string> chat_template() const override { return files_.chat_template; }
  SpecialTokens special_tokens() const override { return files_.special_tokens; }

 private:
  std::string where(std::string_view name) const { return fmt::format("{}: {}", folder_, name); }

  /// Whether this is a matrix that is there as X.qweight and its like alone. Modules that were not converted have
  /// their X.weight.
  bool is_quantized(std::string_view name) const {
    const std::string_view module = module_of(name);
    return !module.empty() && !tensors_.contains(name) && tensors_.contains(std::string(module) + ".qweight");
  }

  /// Whether this is a matrix of 8 bits with a scale for each row. Modules that were not converted are plain.
  bool has_rows_of_codes(std::string_view name) const {
    return quantization_.has_int8_rows && is_row_quantized(tensors_, name);
  }

  Result<QuantizedTensors> find_packed(std::string_view name, std::int64_t rows, std::int64_t cols) const {
    if (quantization_.format == ModelFormat::kPlain) {
      return unsupported(
          fmt::format("{}: is quantized, but config.json has no quantization_config that says how; name "
                      "the model format (--model-format awq or gptq)",
                      where(name)));
    }
    return find_quantized(tensors_, module_of(name), rows, cols, quantization_, folder_);
  }

  /// The tensor, when its shape is `shape` and its dtype one that can be read.
  Result<const StoredTensor*> find(std::string_view name, std::span<const std::int64_t> shape) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return not_found(fmt::format("{}: is missing", where(name)));
    const StoredTensor& tensor = found->second;
    LANNER_RETURN_IF_ERROR(check_shape(where(name), tensor.shape, shape));
    if (!dense_format(tensor.dtype)) {
      return unsupported(
          fmt::format("{}: dtype {}; this build computes with F32, F16 and BF16", where(name), tensor.dtype));
    }
    return &tensor;
  }

  std::string folder_;
  FolderFiles files_;
  TensorMap tensors_;
  GroupQuantization quantization_;
};

/// A special token is a string, or an object whose "content" is one.
std::string token_text(const Json& file, std::string_view key) {
  const auto found = file.find(key);
  if (found == file.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_object()) return {};
  const auto content = found->find("content");
  return content != found->end() && content->is_string() ? content->get<std::string>() : std::string();
}

/// tokenizer_config.json's chat_template: one text, or a list of named ones of which "default" counts.
Result<std::optional<std::string>> config_template(const Json& tokenizer_config, const std::string& folder) {
  const JsonFields fields(tokenizer_config, folder + "/tokenizer_config.json");
  const Json* value = fields.find("chat_template");
  if (value == nullptr) return std::optional<std::string>();
  if (value->is_string()) return std::optional<std::string>(value->get<std::string>());
  if (!value->is_array()) return fields.wrong("chat_template", "is neither a string nor a list");
  for (const Json& entry : *value) {
    if (!entry.is_object() || !entry.contains("name") || !entry.contains("template") || !entry["name"].is_string() ||
        !entry["template"].is_string()) {
      return fields.wrong("chat_template", "has an entry without name and template");
    }
    if (entry["name"].get<std::string>() == "default") {
      return std::optional<std::string>(entry["template"].get<std::string>());
    }
  }
  return std::optional<std::string>();
}

/// chat_template.jinja wins over tokenizer_config.json, as in Transformers.
Result<std::optional<std::string>> read_template(const std::string& folder, const Json& tokenizer_config) {
  Result<std::string> path = model_file(folder, "chat_template.jinja");
  if (!path.ok()) {
    if (path.status().code() != StatusCode::kNotFound) return path.status();
    return config_template(tokenizer_config, folder);
  }
  LANNER_ASSIGN_OR_RETURN(std::string source, read_file(*path, kMaxTemplateBytes));
  return std::optional<std::string>(std::move(source));
}

Result<FolderFiles> read_files(const std::string& folder) {
  FolderFiles files;
  LANNER_ASSIGN_OR_RETURN(files.config, read_folder_object(folder, "config.json"));
  LANNER_ASSIGN_OR_RETURN(files.generation_config, read_optional_object(folder, "generation_config.json"));
  LANNER_ASSIGN_OR_RETURN(const Json tokenizer_config, read_optional_object(folder, "tokenizer_config.json"));
  LANNER_ASSIGN_OR_RETURN(const Json special_map, read_optional_object(folder, "special_tokens_map.json"));
  LANNER_ASSIGN_OR_RETURN(files.chat_template, read_template(folder, tokenizer_config));
  const auto text = [&](std::string_view key) {
    std::string token = token_text(tokenizer_config, key);
    return token.empty() ? token_text(special_map, key) : token;
  };
  files.special_tokens.bos = text("bos_token");
  files.special_tokens.eos = text("eos_token");
  files.special_tokens.unk = text("unk_token");
  files.special_tokens.pad = text("pad_token");
  return files;
}

/// What says how matrices are quantized where config.json does not.
Result<Json> read_legacy_quantization(const std::string& folder, ModelFormat format) {
  if (format == ModelFormat::kPlain) return Json::object();
  return read_optional_object(folder, legacy_config_name(format));
}

}  // namespace

Result<std::shared_ptr<const Checkpoint>> open_folder_checkpoint(const std::string& folder, ModelFormat format) {
  LANNER_ASSIGN_OR_RETURN(FolderFiles files, read_files(folder));
  LANNER_ASSIGN_OR_RETURN(const Json legacy, read_legacy_quantization(folder, format));
  LANNER_ASSIGN_OR_RETURN(const GroupQuantization quantization,
                          read_group_quantization(files.config, legacy, format, folder));
  LANNER_ASSIGN_OR_RETURN(TensorMap tensors, open_model_tensors(folder));
  return std::shared_ptr<const Checkpoint>(
      std::make_shared<FolderCheckpoint>(folder, std::move(files), std::move(tensors), quantization));
}

Result<std::shared_ptr<const Checkpoint>> open_folder_texts(const std::string& folder) {
  LANNER_ASSIGN_OR_RETURN(FolderFiles files, read_files(folder));
  return std::shared_ptr<const Checkpoint>(
      std::make_shared<FolderCheckpoint>(folder, std::move(files), TensorMap(), GroupQuantization()));
}

}  // namespace lanner::model
