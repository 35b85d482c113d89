#pragma once
// `lanner lite auto_awq`: a Hugging Face folder of 4-bit weights out of one of 16 or 32 bits.
//
// Calibration (calibration.h) gives the scales of smoothing (smoothing.h), layer by layer; then tensor by tensor is
// smoothed, rounded and packed (awq_matrix.h), or brought to fp16 where it stays whole: embeddings, head, norms,
// biases. The folder is one that Transformers, vLLM and LMDeploy read: safetensors in shards, config.json with a
// quantization_config, tokenizer and other texts as they were. It is written beside its place and renamed
// (work_folder.h).
//
//   LANNER_ASSIGN_OR_RETURN(const AwqPlan plan, plan_awq(*checkpoint, 128));
//   LANNER_RETURN_IF_ERROR(quantize_awq(*checkpoint, plan, {.destination = "…", .windows = windows}));

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"

namespace lanner::quant {

/// Groups that the engine computes with.
inline constexpr std::int64_t kGroupSizes[] = {128, 64, 32};

/// A model that has been found fit to be quantized.
struct AwqPlan {
  model::DecoderSpec spec;
  std::int64_t group_size = 0;
  std::int64_t most_shard_bytes = 2'000'000'000;
};

/// The largest of kGroupSizes up to `most` that divides the inputs of all of the model's matrices; 0: none does.
std::int64_t largest_group_size(const model::DecoderSpec& spec, std::int64_t most);

/// kUnsupported for a model that is no folder of plain weights, or has matrices that AWQ has no form for.
/// kInvalidArgument where the group size does not divide their inputs: see largest_group_size().
Result<AwqPlan> plan_awq(const model::Checkpoint& checkpoint, std::int64_t group_size);

struct AwqOptions {
  std::string destination;                             // a folder that is not there, or is empty
  std::vector<std::span<const std::int32_t>> windows;  // the calibration text; empty: nothing is smoothed
  bool search_scale = false;                           // scale_search.h, with the first few windows
  int threads = 0;                                     // 0: all
  bool resume = false;                                 // go on with what a killed run left
  std::function<void(double)> progress;                // the share that is done, 0 to 1; may be empty
};

struct AwqResult {
  std::int64_t source_bytes = 0;  // of all tensors
  std::int64_t bytes = 0;         // of all tensors that were written
  std::int64_t matrices = 0;      // that were rounded
};

Result<AwqResult> quantize_awq(const model::Checkpoint& checkpoint, const AwqPlan& plan, const AwqOptions& options);

}  // namespace lanner::quant
