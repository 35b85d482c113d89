// lanner benchmark: how fast a model runs here, as times and as shares of what the machine can do.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "cli/arguments.h"
#include "cli/benchmark_subject.h"
#include "cli/engine_flags.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/verbs.h"
#include "eval/generation_benchmark.h"
#include "eval/report.h"

namespace lanner::cli {
namespace {

struct BenchmarkOptions {
  BenchmarkFlags flags;
  eval::GenerationBenchmarkOptions generation;
};

/// The speeds with what they are compared to.
struct Figures {
  DeviceLimits limits;
  eval::DecoderCost cost;
  eval::GenerationSpeeds speeds;

  /// Of the layers' products; attention is not counted. 0 where the peak is not known.
  double prefill_share(double tokens_per_s) const {
    if (limits.product_ops_per_s <= 0) return 0;
    const double ops_per_token = cost.ops_per_parameter * static_cast<double>(cost.layer_parameters);
    return ops_per_token * tokens_per_s / limits.product_ops_per_s;
  }
  /// Each step reads the weights once for the whole batch; the KV cache is not counted.
  double decode_share(double tokens_per_s, std::int32_t batch_size) const {
    return static_cast<double>(cost.weight_bytes_per_step) * tokens_per_s / batch_size / limits.read_bytes_per_s;
  }
};

std::string table(const Figures& figures, const BenchmarkSubject& subject) {
  std::string text = fmt::format(
      "{} on {}\n"
      "limits here and now: {}\n\n"
      "prefill, one request\n"
      "{:>7}{:>27}{:>10}   of {} peak\n",
      subject.name, subject.opened.device, figures.limits.line, "prompt", "tok/s min / median", "max",
      figures.limits.products);
  for (const eval::PrefillSpeed& row : figures.speeds.prefill) {
    const eval::Spread& speed = row.tokens_per_s;
    text += fmt::format("{:>7}{:>14.1f} / {:>10.1f}{:>10.1f}   {:.1f} %\n", row.prompt_tokens, speed.min, speed.median,
                        speed.max, 100 * figures.prefill_share(speed.median));
  }
  // Where the device works behind the host, what the host adds to a step is hidden up to the time of a step.
  const bool behind = subject.opened.ran_on == Device::kCuda;
  text += fmt::format("\ndecode, whole batch\n{:>7}{:>7}{:>27}{:>10}   of bandwidth{}\n", "prompt", "batch",
                      "tok/s min / median", "max", behind ? "   host us/step" : "");
  for (const eval::DecodeSpeed& row : figures.speeds.decode) {
    const eval::Spread& speed = row.tokens_per_s;
    text += fmt::format("{:>7}{:>7}{:>14.1f} / {:>10.1f}{:>10.1f}{:>8.1f} %", row.prompt_tokens, row.batch_size,
                        speed.min, speed.median, speed.max, 100 * figures.decode_share(speed.median, row.batch_size));
    text += behind ? fmt::format("{:>20.1f}\n", row.host_us_per_step) : "\n";
  }
  return text;
}

const char* products_name(eval::Products products) {
  switch (products) {
    case eval::Products::kFloat32: return "float32";
    case eval::Products::kInt8: return "int8";
    case eval::Products::kHalf: return "float16";
  }
  return "unknown";
}

nlohmann::ordered_json spread_json(const eval::Spread& spread) {
  return {{"min", spread.min}, {"median", spread.median}, {"max", spread.max}};
}

nlohmann::ordered_json figures_json(const Figures& figures, const eval::GenerationBenchmarkOptions& options) {
  nlohmann::ordered_json json;
  json["output_tokens"] = options.output_tokens;
  json["repetitions"] = options.repetitions;
  json["seed"] = options.seed;
  json["limits"] = figures.limits.json;
  json["layer_parameters"] = figures.cost.layer_parameters;
  json["weight_bytes_per_step"] = figures.cost.weight_bytes_per_step;
  json["products"] = products_name(figures.cost.products);
  json["ops_per_parameter"] = figures.cost.ops_per_parameter;
  json["prefill"] = nlohmann::ordered_json::array();
  for (const eval::PrefillSpeed& row : figures.speeds.prefill) {
    json["prefill"].push_back({{"prompt_tokens", row.prompt_tokens},
                               {"tokens_per_s", spread_json(row.tokens_per_s)},
                               {"share_of_peak", figures.prefill_share(row.tokens_per_s.median)}});
  }
  json["decode"] = nlohmann::ordered_json::array();
  for (const eval::DecodeSpeed& row : figures.speeds.decode) {
    json["decode"].push_back({{"prompt_tokens", row.prompt_tokens},
                              {"batch_size", row.batch_size},
                              {"tokens_per_s", spread_json(row.tokens_per_s)},
                              {"share_of_bandwidth", figures.decode_share(row.tokens_per_s.median, row.batch_size)},
                              {"host_us_per_step", row.host_us_per_step}});
  }
  return json;
}

/// Room for the largest batch of the longest requests, and every prompt computed from its start.
EngineOptions for_generation(EngineOptions options, const eval::GenerationBenchmarkOptions& generation) {
  const std::int32_t prompt = *std::ranges::max_element(generation.prompt_tokens);
  if (options.session_len == 0) options.session_len = prompt + generation.output_tokens;
  options.max_batch_size = *std::ranges::max_element(generation.batch_sizes);
  options.enable_prefix_caching = false;
  return options;
}

Status run_generation(const BenchmarkOptions& options) {
  LANNER_ASSIGN_OR_RETURN(const PipelineOptions pipeline_flags, pipeline_options(options.flags.engine));
  const EngineOptions engine_options = for_generation(pipeline_flags.engine, options.generation);
  LANNER_ASSIGN_OR_RETURN(const BenchmarkSubject subject, open_subject(options.flags, engine_options));
  Figures figures;
  LANNER_ASSIGN_OR_RETURN(figures.cost, eval::decoder_cost(*subject.checkpoint, engine_options, subject.opened.ran_on,
                                                           subject.engine().memory_plan().weight_bytes));
  LANNER_ASSIGN_OR_RETURN(figures.limits, measure_limits(subject, engine_options, figures.cost.products));

  ProgressBar bar("measuring");
  eval::GenerationBenchmarkOptions generation = options.generation;
  generation.progress = [&bar](std::int64_t done, std::int64_t total) { bar.set(done, total); };
  auto speeds = eval::measure_generation(subject.engine(), generation);
  bar.clear();
  LANNER_RETURN_IF_ERROR(speeds.status());
  figures.speeds = *std::move(speeds);

  // The table comes first: a report that cannot be written must not cost the measurement.
  Status shown = write_stdout(table(figures, subject));
  if (!options.flags.json.empty()) {
    nlohmann::ordered_json report = eval::report_head("generation", subject.report_subject(), engine_options);
    report.update(figures_json(figures, generation));
    LANNER_RETURN_IF_ERROR(eval::write_report(report, options.flags.json));
  }
  return shown;
}

}  // namespace

void add_benchmark(CLI::App& program, Run& run) {
  CLI::App* group = program.add_subcommand("benchmark", "Measure how fast a model runs, and what it takes");
  auto options = std::make_shared<BenchmarkOptions>();
  add_benchmark_throughput(*group, run);
  add_benchmark_kernels(*group, run);
  add_benchmark_serving(*group, run);
  add_benchmark_memory(*group, run);
  CLI::App* verb = group->add_subcommand("generation", "Prompts alone, and decoding at several batch sizes");
  eval::GenerationBenchmarkOptions& generation = options->generation;
  limit(verb->add_option("--batch-sizes", generation.batch_sizes, "Requests that decode together"), 1, kMostSequences);
  limit(verb->add_option("--prompt-tokens", generation.prompt_tokens, "Lengths of the random prompts"), 1, 1 << 25);
  limit(verb->add_option("--output-tokens", generation.output_tokens, "New tokens of a request"), 2, 1 << 25);
  limit(verb->add_option("--repetitions", generation.repetitions, "Counted runs of each shape, after one that is not"),
        1, 1000);
  verb->add_option("--seed", generation.seed, "Of the random prompts");
  add_benchmark_flags(*verb, options->flags);
  verb->callback([&run, options] { run = [options] { return exit_code(run_generation(*options)); }; });
}

}  // namespace lanner::cli
