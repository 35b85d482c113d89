#pragma once
// The files of a quantized folder: which tensors, in which shards, and what is in them.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/safetensors_writer.h"
#include "model/stored_tensor.h"
#include "quant/plan.h"
#include "quant/smoothing.h"

namespace lanner::quant {

/// A tensor of the source, and what is made of it.
struct OutputTensor {
  const model::StoredTensor* source = nullptr;
  enum class Kind : std::uint8_t { kCopied, kHalf, kRounded } kind = Kind::kCopied;
  bool is_norm = false;                      // to which the architecture adds an offset
  std::vector<model::TensorHeader> headers;  // one, or those of packed_headers()
};

struct OutputShard {
  std::string file;
  std::vector<OutputTensor> tensors;
};

/// Everything that is written; points into `tensors`. kUnsupported for a matrix whose name does not end in .weight.
Result<std::vector<OutputShard>> plan_shards(const model::TensorMap& tensors, const Plan& plan);

std::int64_t shard_bytes(const std::vector<OutputShard>& shards);
/// Of what becomes of it.
std::int64_t output_bytes(const OutputTensor& tensor);
std::int64_t elements_of(const OutputTensor& tensor);

/// What the method makes of the model.
struct FolderContents {
  SmoothingFactors factors;  // may be empty
  /// Appends what a matrix becomes that is rounded; `factors` are its own, or empty.
  std::function<Status(const OutputTensor& tensor, const TensorFactors& factors, model::SafetensorsWriter& writer)>
      write_rounded;
};

/// The matrix of one that is rounded.
LinearTensor linear_of(const OutputTensor& tensor);

/// Writes the shards that are not there yet. `on_tensor` is called with the elements of each, also of those that were
/// there.
Status write_shards(const model::Checkpoint& checkpoint, const Plan& plan, const std::vector<OutputShard>& shards,
                    const FolderContents& contents, const std::string& folder,
                    const std::function<void(std::int64_t)>& on_tensor);

/// Everything beside the shards: their index where there are several, config.json, and copies of the source's texts.
Status write_texts(const model::Checkpoint& checkpoint, const Plan& plan, const std::vector<OutputShard>& shards,
                   const std::string& folder);

}  // namespace lanner::quant
