#pragma once
// What a model is to become, and what a run that makes it is told. `lanner lite auto_awq` and `auto_gptq` make a
// Hugging Face folder of 4-bit weights out of one of 16 or 32 bits:
//
//   LANNER_ASSIGN_OR_RETURN(const Plan plan, make_plan(*checkpoint, Method::kAwq, {.size = 128}));
//   LANNER_RETURN_IF_ERROR(quantize_awq(*checkpoint, plan, {.destination = "…", .windows = windows}));
//
// The folder is one that Transformers, vLLM and LMDeploy read: safetensors in shards, config.json with a
// quantization_config, tokenizer and other texts as they were; what is not rounded, which is embeddings, head, norms
// and biases, in fp16. It is written beside its place and renamed (work_folder.h).

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "model/decoder_spec.h"
#include "quant/group_rounding.h"
#include "quant/packed_matrix.h"

namespace lanner::quant {

/// Groups that the engine computes with.
inline constexpr std::int64_t kGroupSizes[] = {128, 64, 32};

/// What GPTQ adds to the diagonal of a Hessian, as a share of its mean.
inline constexpr double kDamping = 0.01;

/// A model that has been found fit to be quantized.
struct Plan {
  Method method = Method::kAwq;
  model::DecoderSpec spec;
  Grouping grouping;  // of 4 bits
  std::int64_t most_shard_bytes = 2'000'000'000;
};

/// The largest of kGroupSizes up to `most` that divides the inputs of all of the model's matrices; 0: none does.
std::int64_t largest_group_size(const model::DecoderSpec& spec, std::int64_t most);

/// kUnsupported for a model that is no Hugging Face folder of plain weights.
Result<model::DecoderSpec> read_plain_spec(const model::Checkpoint& checkpoint);

/// kUnsupported for a model that is no folder of plain weights, or has matrices that the method has no form for.
/// kInvalidArgument where the group size does not divide their inputs: see largest_group_size().
Result<Plan> make_plan(const model::Checkpoint& checkpoint, Method method, const Grouping& grouping);

struct Options {
  std::string destination;                             // a folder that is not there, or is empty
  std::vector<std::span<const std::int32_t>> windows;  // the calibration text; empty: rounds without calibration
  int threads = 0;                                     // 0: all
  bool resume = false;                                 // go on with what a killed run left
  std::function<void(double)> progress;                // the share that is done, 0 to 1; may be empty
};

struct Outcome {
  std::int64_t source_bytes = 0;  // of all tensors
  std::int64_t bytes = 0;         // of all tensors that were written
  std::int64_t matrices = 0;      // that were rounded
};

}  // namespace lanner::quant
