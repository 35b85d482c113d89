#pragma once
// A model in the form that starts fastest: `lanner convert`.
//
// The destination is a folder with model.lanner (packed_file.h) and copies of the source's small files. It is written
// beside its place and renamed, so that it is there whole or not at all.

#include <functional>
#include <string>

#include "lanner/status.h"
#include "model/checkpoint.h"

namespace lanner::model {

struct ConvertOptions {
  std::string source;       // a model folder or a GGUF file
  std::string destination;  // a folder that is not there, or is empty
  ModelFormat format = ModelFormat::kPlain;
  int threads = 0;                       // 0: all
  std::function<void(double)> progress;  // the share that is done, 0 to 1; may be empty
};

/// kConflict when the destination is there already and holds something.
Status convert_model(const ConvertOptions& options);

}  // namespace lanner::model
