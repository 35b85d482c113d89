// lanner benchmark memory: what a model takes, planned and in fact, by the share of the free memory that its KV cache
// may have and by how it is kept.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/arguments.h"
#include "cli/benchmark_subject.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/verbs.h"
#include "engine/open_engine.h"
#include "eval/line_chart.h"
#include "eval/memory_benchmark.h"
#include "eval/report.h"

namespace lanner::cli {
namespace {

struct MemoryFlags {
  BenchmarkFlags subject;
  std::optional<int> max_batch_size;
  std::vector<double> ratios = eval::MemoryBenchmarkOptions{}.ratios;
  std::vector<std::string> policies = {"0", "8", "4"};
  std::vector<std::string> plots;
  bool fill = false;
};

std::string bytes_text(std::int64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

std::string table(const std::string& name, const eval::MemoryFigures& figures) {
  std::string text = fmt::format("{} on {}\n\n{:<10}{:>6}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}\n", name,
                                 figures.device, "KV cache", "ratio", "tokens", "free", "weights", "copies",
                                 "workspace", "KV cache", "planned", "resident");
  for (const eval::MemoryUse& use : figures.uses) {
    text += fmt::format("{:<10}{:>6.4g}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}\n", use.plan.kv_type, use.ratio,
                        use.plan.kv_tokens, bytes_text(use.plan.free_bytes), bytes_text(use.plan.weight_bytes),
                        bytes_text(use.plan.copy_bytes), bytes_text(use.plan.workspace_bytes),
                        bytes_text(use.plan.kv_bytes), bytes_text(use.planned_bytes()),
                        use.resident_bytes ? bytes_text(*use.resident_bytes) : "-");
  }
  return text;
}

nlohmann::ordered_json figures_json(const eval::MemoryFigures& figures, bool fill) {
  nlohmann::ordered_json json;
  json["filled"] = fill;
  json["rows"] = nlohmann::ordered_json::array();
  for (const eval::MemoryUse& use : figures.uses) {
    nlohmann::ordered_json row = {{"kv_type", use.plan.kv_type},       {"cache_max_entry_count", use.ratio},
                                  {"free_bytes", use.plan.free_bytes}, {"weight_bytes", use.plan.weight_bytes},
                                  {"copy_bytes", use.plan.copy_bytes}, {"workspace_bytes", use.plan.workspace_bytes},
                                  {"kv_bytes", use.plan.kv_bytes},     {"kv_blocks", use.plan.kv_blocks},
                                  {"kv_tokens", use.plan.kv_tokens},   {"planned_bytes", use.planned_bytes()},
                                  {"resident_bytes", nullptr}};
    if (use.resident_bytes) row["resident_bytes"] = *use.resident_bytes;
    json["rows"].push_back(std::move(row));
  }
  return json;
}

/// The policies that the flag names, each as --quant-policy would take it, by the checks that all flags go through.
Result<eval::MemoryBenchmarkOptions> memory_options(const MemoryFlags& flags) {
  eval::MemoryBenchmarkOptions options{.engine = {}, .ratios = flags.ratios, .policies = {}, .progress = nullptr};
  EngineFlags engine = flags.subject.engine;
  engine.max_batch_size = flags.max_batch_size;
  for (const double ratio : flags.ratios) {
    if (ratio <= 0 || ratio >= 1) return invalid_argument("--ratios must be between 0 and 1, both excluded");
  }
  for (const std::string& policy : flags.policies) {
    engine.quant_policy = policy == "4" ? "int4" : policy;  // what 4 once meant need not be told here
    LANNER_ASSIGN_OR_RETURN(const PipelineOptions checked, pipeline_options(engine));
    options.engine = checked.engine;
    options.policies.push_back(checked.engine.quant_policy);
  }
  options.engine.fill_kv_cache = flags.fill;
  return options;
}

Status run_memory(const MemoryFlags& flags) {
  for (const std::string& path : flags.plots) LANNER_RETURN_IF_ERROR(eval::check_chart_path(path));
  LANNER_ASSIGN_OR_RETURN(eval::MemoryBenchmarkOptions options, memory_options(flags));
  LANNER_ASSIGN_OR_RETURN(const NamedCheckpoint named, open_named_checkpoint(flags.subject, options.engine));
  ProgressBar bar("measuring");
  options.progress = [&bar](std::int64_t done, std::int64_t total) { bar.set(done, total); };
  const auto measured = eval::measure_memory(named.checkpoint, options);
  bar.clear();
  LANNER_RETURN_IF_ERROR(measured.status());
  const eval::MemoryFigures& figures = *measured;
  for (const std::string& text : figures.notes) note(text);
  // The table comes first: a file that cannot be written must not cost the measurement.
  Status shown = write_stdout(table(named.name, figures));
  if (!flags.subject.json.empty()) {
    nlohmann::ordered_json report = eval::report_head(
        "memory", {.model = named.name, .architecture = figures.architecture, .device = figures.device},
        options.engine);
    report.update(figures_json(figures, flags.fill));
    LANNER_RETURN_IF_ERROR(eval::write_report(report, flags.subject.json));
  }
  const eval::LineChart chart = eval::memory_chart("Memory of " + named.name, figures);
  for (const std::string& path : flags.plots) LANNER_RETURN_IF_ERROR(eval::write_charts({&chart, 1}, path));
  return shown;
}

}  // namespace

void add_benchmark_memory(CLI::App& group, Run& run) {
  auto flags = std::make_shared<MemoryFlags>();
  CLI::App* verb = group.add_subcommand("memory", "What a model takes, by the KV cache's share and how it is kept");
  verb->add_option("--ratios", flags->ratios, "Values of --cache-max-entry-count, each tried");
  verb->add_option("--quant-policies", flags->policies, "Values of --quant-policy, each tried at each ratio");
  verb->add_flag("--fill", flags->fill, "Write to the whole KV cache, so that what is resident is what it can become");
  limit(verb->add_option("--max-batch-size", flags->max_batch_size, "Sequences that run at once")
            ->default_str("128; on CUDA up to 1024, by the device"),
        1, kMostSequences);
  verb->add_option("--plot", flags->plots, "Draw the figures into these files, .svg or .png")->type_name("FILE");
  add_benchmark_flags(*verb, flags->subject);
  verb->callback([&run, flags] { run = [flags] { return exit_code(run_memory(*flags)); }; });
}

}  // namespace lanner::cli
