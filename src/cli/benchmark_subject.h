#pragma once
// What the verbs below `benchmark` measure: an engine over a model, or over random weights of a model's shape. They use
// no text, so that a model without a tokenizer will do.

#include <cstdint>
#include <memory>
#include <string>

#include "cli/engine_flags.h"
#include "cli/verbs.h"
#include "engine/open_engine.h"
#include "eval/generation_benchmark.h"
#include "eval/report.h"
#include "eval/roofline.h"
#include "lanner/status.h"
#include "model/checkpoint.h"

namespace CLI {
class App;
}

namespace lanner::cli {

struct BenchmarkFlags {
  EngineFlags engine;
  std::string random_weights;         // a folder with config.json, in the place of MODEL
  std::string random_weights_format;  // empty: as config.json says
  std::string json;
};

/// MODEL or --random-weights, --json, and the flags of the engine.
void add_benchmark_flags(CLI::App& verb, BenchmarkFlags& flags);

struct BenchmarkSubject {
  std::shared_ptr<const model::Checkpoint> checkpoint;
  OpenedEngine opened;
  std::string name;

  Engine& engine() const { return *opened.engine; }
  eval::ReportSubject report_subject() const {
    return {.model = name, .architecture = opened.architecture, .device = opened.device};
  }
};

struct NamedCheckpoint {
  std::shared_ptr<const model::Checkpoint> checkpoint;
  std::string name;
};
/// What the flags name, not yet loaded.
Result<NamedCheckpoint> open_named_checkpoint(const BenchmarkFlags& flags, const EngineOptions& options);
/// Opens what the flags name with these options. Notes, the bar and the memory plan go to stderr.
Result<BenchmarkSubject> open_subject(const BenchmarkFlags& flags, const EngineOptions& options);

/// What the device can do at most, measured here and now.
struct DeviceLimits {
  double read_bytes_per_s = 0;
  double product_ops_per_s = 0;  // of the kind of products that the model runs on; 0: not known
  std::string products;          // "int8", "fp32", "fp16"
  std::string line;              // "reading 31.2 GB/s, fp32 330 GFLOP/s, int8 1101 GOP/s"
  nlohmann::ordered_json json;
};
Result<DeviceLimits> measure_limits(const BenchmarkSubject& subject, const EngineOptions& options,
                                    eval::Products products);

/// Of the CPU: "reading 31.2 GB/s, fp32 330 GFLOP/s, int8 1101 GOP/s".
std::string limits_line(const eval::Roofline& limits);
nlohmann::ordered_json limits_json(const eval::Roofline& limits);

// Of the group that add_benchmark makes.
void add_benchmark_throughput(CLI::App& group, Run& run);
void add_benchmark_kernels(CLI::App& group, Run& run);
void add_benchmark_serving(CLI::App& group, Run& run);
void add_benchmark_memory(CLI::App& group, Run& run);

}  // namespace lanner::cli
