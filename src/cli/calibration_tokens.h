#pragma once
// The text that `lanner lite` calibrates a model with, as that model's tokens.

#include <cstdint>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "model/checkpoint.h"

namespace lanner::cli {

struct CalibrationTokens {
  std::string path;  // of the file that was read
  std::vector<std::int32_t> tokens;
};

/// `dataset`: as --calib-dataset names it (eval/dataset.h). Conversations are rendered by the model's chat template;
/// where it has none, a note says which one is taken. Special tokens that other texts spell stay text.
Result<CalibrationTokens> read_calibration_tokens(const std::string& dataset, const model::Checkpoint& checkpoint);

}  // namespace lanner::cli
