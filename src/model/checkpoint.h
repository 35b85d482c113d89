#pragma once
// A model on disk, whatever its format: named tensors, a configuration, a vocabulary.
//
// open_checkpoint() takes a Hugging Face folder or a GGUF file, maps it, and checks every length, offset, shape and
// count in it before anything is used: a file from outside is hostile until then. Errors are one line that
// names the file and the tensor or field. A Checkpoint is immutable and safe to read from any thread.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "ops/weight_source.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace lanner::model {

enum class CheckpointKind : std::uint8_t { kFolder, kGguf };

/// How a folder's matrices are kept, beside those that are plain.
enum class ModelFormat : std::uint8_t { kPlain, kAwq, kGptq };

struct CheckpointOptions {
  /// For folders of before config.json had a quantization_config; kPlain: as config.json says. kInvalidArgument where
  /// the two contradict each other, or the model is a GGUF file.
  ModelFormat format = ModelFormat::kPlain;
};

/// "awq" and "gptq"; "", "hf" and "llama" are kPlain. kUnsupported for other names.
Result<ModelFormat> model_format(std::string_view name);

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  virtual CheckpointKind kind() const = 0;
  virtual const std::string& path() const = 0;

  /// config.json, or a GGUF's metadata under the keys that config.json uses (hidden_size, rope_theta, …).
  virtual const nlohmann::ordered_json& config() const = 0;
  /// generation_config.json, or what a GGUF says of it (eos_token_id, …); an empty object when there is none.
  virtual const nlohmann::ordered_json& generation_config() const = 0;

  /// Whether matrices are packed already (packed_checkpoint.h): as the decoder computes with them, under names of
  /// their own.
  virtual bool is_packed() const { return false; }

  virtual bool has_tensor(std::string_view name) const = 0;
  /// Bytes of all tensors as stored; what the memory plan and the progress bar count.
  virtual std::int64_t tensor_bytes() const = 0;

  /// A matrix for repacking. kNotFound, kCorrupt when its shape is not (rows, cols), kUnsupported for a type.
  virtual Result<ops::WeightSource> matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const = 0;
  /// A vector widened to fp32, such as a norm's gain or a bias.
  virtual Result<std::vector<float>> vector(std::string_view name, std::int64_t size) const = 0;

  /// What matrix() and vector() would refuse for a missing tensor, its shape or its type, without reading it.
  virtual Status check_matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const = 0;
  virtual Status check_vector(std::string_view name, std::int64_t size) const = 0;

  /// The vocabulary: tokenizer.json of the folder, or the one inside the GGUF.
  virtual Result<std::shared_ptr<const Tokenizer>> tokenizer() const = 0;
  /// The Jinja source of the chat template, or nothing.
  virtual std::optional<std::string> chat_template() const = 0;
  /// The text of the special tokens that templates name; empty where the model has none.
  virtual SpecialTokens special_tokens() const = 0;
};

Result<std::shared_ptr<const Checkpoint>> open_checkpoint(const std::string& path,
                                                          const CheckpointOptions& options = {});

}  // namespace lanner::model
