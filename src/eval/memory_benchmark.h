#pragma once
// How much memory a model takes, by the share of the free memory that its KV cache may have and by how it is kept.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eval/line_chart.h"
#include "lanner/engine.h"
#include "lanner/options.h"
#include "lanner/status.h"
#include "model/checkpoint.h"

namespace lanner::eval {

struct MemoryBenchmarkOptions {
  EngineOptions engine;  // but for what the next two say
  std::vector<double> ratios = {0.8, 0.5, 0.4, 0.2, 0.01};
  std::vector<QuantPolicy> policies = {QuantPolicy::kNone, QuantPolicy::kInt8, QuantPolicy::kInt4};
  std::function<void(std::int64_t done, std::int64_t total)> progress;  // may be empty
};

/// What one start took.
struct MemoryUse {
  double ratio = 0;
  MemoryPlan plan;
  /// Of the process, where its kernel tells: all that it has in memory while the engine is open, but for pages of
  /// files. On CUDA what is free on the device less than before: without the driver's own.
  std::optional<std::int64_t> resident_bytes;

  std::int64_t planned_bytes() const {
    return plan.weight_bytes + plan.copy_bytes + plan.workspace_bytes + plan.kv_bytes;
  }
};

struct MemoryFigures {
  std::vector<MemoryUse> uses;  // of the first policy at each ratio, then of the next
  std::string architecture;
  std::string device;
  std::vector<std::string> notes;  // of the engines, each once
};

/// What the kernel says is in memory of this process, where it does, without pages of files: a mapped model's go as
/// they came.
std::optional<std::int64_t> resident_bytes();

/// Opens the model once for each policy and ratio, one after the other; nothing is computed.
Result<MemoryFigures> measure_memory(const std::shared_ptr<const model::Checkpoint>& checkpoint,
                                     const MemoryBenchmarkOptions& options);

/// Of the figures: planned and, where they are known, resident bytes over the ratio, a line for each type of KV cache.
LineChart memory_chart(const std::string& title, const MemoryFigures& figures);

}  // namespace lanner::eval
