#pragma once
// A model of a given shape without its weights, for measuring speed: a folder that holds only config.json.

#include <memory>
#include <optional>
#include <string>

#include "lanner/status.h"
#include "model/checkpoint.h"
#include "ops/weight_source.h"

namespace lanner::model {

/// The folder's config.json with random numbers for every tensor that it asks for: in fp16, or in bf16 or fp32 where
/// it says so, with the usual standard deviation of 0.02; norms' gains are 1 and biases 0. Matrices are views of one
/// buffer, so that opening costs about the time and memory of the largest one. There is no tokenizer.
///
/// With a quantization_config of 4 bits (AWQ or GPTQ) the layers' matrices are int4 in groups of its size, and of each
/// only one exists at a time. kUnsupported for other quantized weights. `wanted` takes the place of what config.json
/// says of formats: all matrices dense in it, or the layers' quantized, in groups of 32, around a zero point in the
/// middle.
Result<std::shared_ptr<const Checkpoint>> open_random_weights(const std::string& folder,
                                                              std::optional<ops::WeightFormat> wanted = std::nullopt);

}  // namespace lanner::model
