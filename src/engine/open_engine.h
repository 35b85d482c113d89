#pragma once
// From a checkpoint to a running engine.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lanner/engine.h"
#include "model/checkpoint.h"

namespace lanner {

struct OpenedEngine {
  std::unique_ptr<Engine> engine;
  std::string architecture;        // such as LlamaForCausalLM
  std::string device;              // such as "cpu avx512, 2 threads"
  std::vector<std::string> notes;  // what the user should know, a line each
};

/// Checks the configuration, loads the weights, plans and reserves memory, starts the engine's thread.
/// `progress` (may be empty) is called on this thread with the share of the weights that is loaded.
/// kResourceExhausted, with what is needed and what is free, when memory does not suffice.
Result<OpenedEngine> open_engine(std::shared_ptr<const model::Checkpoint> checkpoint, const EngineOptions& options,
                                 const std::function<void(double)>& progress);

}  // namespace lanner
