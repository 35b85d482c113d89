#include "cli/benchmark_subject.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <optional>
#include <utility>

#include "cli/arguments.h"
#include "cli/output.h"
#include "eval/roofline.h"
#include "model/random_weights.h"
#include "net/hub.h"
#include "ops/backend.h"

namespace lanner::cli {
namespace {

std::optional<ops::WeightFormat> format_by_name(const std::string& name) {
  using enum ops::WeightFormat;
  for (const ops::WeightFormat format : {kInt4, kInt8, kF16, kBF16, kF32}) {
    if (ops::weight_format_name(format) == name) return format;
  }
  return std::nullopt;  // none was asked for: the command line lets no other through
}

Result<DeviceLimits> cuda_limits(eval::Products products) {
  LANNER_ASSIGN_OR_RETURN(const ops::CudaLimits limits, ops::measure_cuda_limits(0));
  DeviceLimits result;
  result.read_bytes_per_s = limits.read_bytes_per_s;
  result.products = "fp16";
  if (products == eval::Products::kHalf) result.product_ops_per_s = limits.half_ops_per_s;
  result.line = fmt::format("reading {:.0f} GB/s", limits.read_bytes_per_s / 1e9);
  if (limits.half_ops_per_s > 0) result.line += fmt::format(", fp16 {:.0f} TFLOP/s", limits.half_ops_per_s / 1e12);
  result.json = {{"read_bytes_per_s", limits.read_bytes_per_s}, {"float16_ops_per_s", limits.half_ops_per_s}};
  return result;
}

Result<DeviceLimits> cpu_limits(const EngineOptions& options, eval::Products products) {
  LANNER_ASSIGN_OR_RETURN(const eval::Roofline limits,
                          eval::measure_roofline({.threads = options.threads, .pin_threads = options.pin_threads}));
  const bool int8 = products == eval::Products::kInt8;
  DeviceLimits result;
  result.read_bytes_per_s = limits.read_bytes_per_s;
  result.product_ops_per_s = int8 ? limits.int8_ops_per_s : limits.float32_ops_per_s;
  result.products = int8 ? "int8" : "fp32";
  result.line = limits_line(limits);
  result.json = limits_json(limits);
  return result;
}

}  // namespace

void add_benchmark_flags(CLI::App& verb, BenchmarkFlags& flags) {
  verb.add_option("MODEL", flags.engine.model, std::string(kModelHelp) + ", unless --random-weights is given");
  verb.add_option("--random-weights", flags.random_weights,
                  "A folder with only config.json: random weights of that shape, in the place of MODEL")
      ->type_name("FOLDER");
  add_choice(verb, "--random-weights-format", flags.random_weights_format,
             {"int4", "int8", "float16", "bfloat16", "float32"},
             "Of the matrices; int4 and int8 of the layers', in groups of 32")
      ->default_str("as config.json says");
  verb.add_option("--json", flags.json, "Write the figures into this file")->type_name("FILE");
  add_engine_flags(verb, flags.engine);
}

std::string limits_line(const eval::Roofline& limits) {
  return fmt::format("reading {:.1f} GB/s, fp32 {:.0f} GFLOP/s, int8 {:.0f} GOP/s", limits.read_bytes_per_s / 1e9,
                     limits.float32_ops_per_s / 1e9, limits.int8_ops_per_s / 1e9);
}

nlohmann::ordered_json limits_json(const eval::Roofline& limits) {
  return {{"threads", limits.threads},
          {"read_buffer_bytes", limits.buffer_bytes},
          {"read_bytes_per_s", limits.read_bytes_per_s},
          {"float32_ops_per_s", limits.float32_ops_per_s},
          {"int8_ops_per_s", limits.int8_ops_per_s}};
}

Result<NamedCheckpoint> open_named_checkpoint(const BenchmarkFlags& flags, const EngineOptions& options) {
  const bool random = !flags.random_weights.empty();
  if (random == !flags.engine.model.empty()) {
    return invalid_argument("give either MODEL or --random-weights");
  }
  if (!random && !flags.random_weights_format.empty()) {
    return invalid_argument("--random-weights-format goes with --random-weights");
  }
  NamedCheckpoint named;
  std::string path = flags.random_weights;
  if (random) {
    LANNER_ASSIGN_OR_RETURN(named.checkpoint,
                            model::open_random_weights(path, format_by_name(flags.random_weights_format)));
  } else {
    LANNER_ASSIGN_OR_RETURN(path, resolve_model(flags.engine));
    LANNER_ASSIGN_OR_RETURN(const model::ModelFormat format, model::model_format(options.model_format));
    LANNER_ASSIGN_OR_RETURN(named.checkpoint, model::open_checkpoint(path, {.format = format}));
  }
  named.name = net::model_name(path) + (random ? " (random weights)" : "");
  return named;
}

Result<BenchmarkSubject> open_subject(const BenchmarkFlags& flags, const EngineOptions& options) {
  const DeviceWarmUp warm_up(options.device);
  LANNER_ASSIGN_OR_RETURN(NamedCheckpoint named, open_named_checkpoint(flags, options));
  BenchmarkSubject subject{.checkpoint = std::move(named.checkpoint), .opened = {}, .name = std::move(named.name)};
  LANNER_ASSIGN_OR_RETURN(subject.opened,
                          open_engine_with_progress(subject.checkpoint, subject.name, options, stderr_is_terminal()));
  return subject;
}

Result<DeviceLimits> measure_limits(const BenchmarkSubject& subject, const EngineOptions& options,
                                    eval::Products products) {
  if (subject.opened.ran_on == Device::kCuda) return cuda_limits(products);
  return cpu_limits(options, products);
}

}  // namespace lanner::cli
