#pragma once
// What `lanner lite` says of a model that it has made smaller: how well it still predicts, and how it answers.

#include <cstdint>
#include <string>

#include "cli/engine_flags.h"
#include "lanner/status.h"

namespace lanner::cli {

struct LiteReport {
  ModelFlags source;         // what was made smaller
  std::string result;        // the folder that came out
  std::string model_format;  // of it
  std::int64_t windows = 16;
  std::int64_t seqlen = 1024;  // of a window
  int threads = 0;
  std::string advice;  // what to try where it came out badly
};

/// Prints it on stdout; a warning on stderr where the model is much worse than its source. The text is WikiText-2's
/// test split; where that is not there, it says so.
Status print_lite_report(const LiteReport& report);

}  // namespace lanner::cli
