// lanner benchmark kernels: the CPU's matrix products, one by one, beside what the machine can do at most.

#include <fmt/format.h>
#include <fmt/ranges.h>

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
#include "core/cpu_info.h"
#include "engine/open_engine.h"
#include "eval/kernel_benchmark.h"

namespace lanner::cli {
namespace {

struct KernelFlags {
  BenchmarkFlags flags;
  eval::KernelBenchmarkOptions kernels;
  std::vector<std::string> isas;  // empty: the one that the engine would take
};

std::string shape_text(const eval::KernelShape& shape) {
  return fmt::format("{} x {}", fmt::join(shape.rows, "+"), shape.cols);
}

std::string table(const eval::KernelFigures& figures, const std::string& name) {
  std::string text = name;
  for (const eval::KernelFigures::Body& body : figures.bodies) {
    text += fmt::format(
        "\n{}, {} threads; limits here and now: {}\n"
        "{:<15}{:<20}{:<10}{:>6}{:>12}   of limit\n",
        cpu_isa_name(body.isa), body.limits.threads, limits_line(body.limits), "product", "shape", "format", "rows",
        "median us");
    for (const eval::KernelFigure& figure : body.figures) {
      const eval::KernelShape& shape = figures.shapes[figure.shape];
      text += fmt::format("{:<15}{:<20}{:<10}{:>6}{:>12.1f}{:>8.1f} % of {}\n", shape.name, shape_text(shape),
                          shape.formats, figure.rows, 1e6 * figure.seconds.median, 100 * figure.share(),
                          figure.read_bound ? "reading" : shape.products());
    }
  }
  return text;
}

nlohmann::ordered_json figures_json(const eval::KernelFigures& figures, const eval::KernelBenchmarkOptions& options) {
  nlohmann::ordered_json json;
  json["seconds_each"] = options.seconds;
  json["shapes"] = nlohmann::ordered_json::array();
  for (const eval::KernelShape& shape : figures.shapes) {
    json["shapes"].push_back({{"name", shape.name},
                              {"rows", shape.rows},
                              {"cols", shape.cols},
                              {"formats", shape.formats},
                              {"bytes", shape.bytes},
                              {"layers", shape.layers}});
  }
  json["bodies"] = nlohmann::ordered_json::array();
  for (const eval::KernelFigures::Body& body : figures.bodies) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const eval::KernelFigure& figure : body.figures) {
      const eval::Spread& seconds = figure.seconds;
      rows.push_back({{"shape", figure.shape},
                      {"input_rows", figure.rows},
                      {"seconds", {{"min", seconds.min}, {"median", seconds.median}, {"max", seconds.max}}},
                      {"bound_by", figure.read_bound ? "reading" : "operations"},
                      {"share_of_limit", figure.share()}});
    }
    json["bodies"].push_back(
        {{"isa", cpu_isa_name(body.isa)}, {"limits", limits_json(body.limits)}, {"figures", std::move(rows)}});
  }
  return json;
}

Status run_kernels(const KernelFlags& flags) {
  LANNER_ASSIGN_OR_RETURN(const PipelineOptions pipeline_flags, pipeline_options(flags.flags.engine));
  const EngineOptions& engine_options = pipeline_flags.engine;
  if (engine_options.device == Device::kCuda) return not_yet("benchmark kernels --device cuda");
  eval::KernelBenchmarkOptions options = flags.kernels;
  options.threads = engine_options.threads;
  options.pin_threads = engine_options.pin_threads;
  options.deterministic = engine_options.deterministic;
  if (engine_options.dtype == ComputeType::kFloat32) options.arithmetic = ops::Arithmetic::kExact;
  if (!flags.isas.empty()) options.isas.clear();
  for (const std::string& name : flags.isas) options.isas.push_back(*cpu_isa_by_name(name));
  LANNER_ASSIGN_OR_RETURN(const NamedCheckpoint model, open_named_checkpoint(flags.flags, engine_options));

  std::vector<std::string> notes;
  LANNER_ASSIGN_OR_RETURN(const auto interleaved, begin_numa(engine_options.numa, notes));

  ProgressBar bar("measuring");
  options.progress = [&bar](std::int64_t done, std::int64_t total) { bar.set(done, total); };
  const auto figures = eval::measure_kernels(*model.checkpoint, options);
  bar.clear();
  LANNER_RETURN_IF_ERROR(figures.status());
  notes.insert(notes.end(), figures->notes.begin(), figures->notes.end());
  for (const std::string& line : notes) note(line);
  Status shown = write_stdout(table(*figures, model.name));
  if (!flags.flags.json.empty()) {
    nlohmann::ordered_json report =
        eval::report_head("kernels", {.model = model.name, .architecture = "", .device = "cpu"}, engine_options);
    report.update(figures_json(*figures, options));
    LANNER_RETURN_IF_ERROR(eval::write_report(report, flags.flags.json));
  }
  return shown;
}

}  // namespace

void add_benchmark_kernels(CLI::App& group, Run& run) {
  auto flags = std::make_shared<KernelFlags>();
  CLI::App* verb = group.add_subcommand("kernels", "The CPU's matrix products, one by one");
  limit(verb->add_option("--rows", flags->kernels.rows, "Input rows of a product"), 1, 1 << 14);
  std::vector<std::string> names;
  for (const CpuIsa isa : known_cpu_isas()) names.emplace_back(cpu_isa_name(isa));
  verb->add_option("--isa", flags->isas, "Instruction sets to measure one after the other")
      ->type_name(fmt::format("{{{}}}", fmt::join(names, ",")))
      ->default_str("the engine's")
      ->check([names](const std::string& value) {
        if (std::ranges::find(names, value) != names.end()) return std::string();
        return fmt::format("{}: known are {}", value, fmt::join(names, ", "));
      });
  add_benchmark_flags(*verb, flags->flags);
  verb->callback([&run, flags] { run = [flags] { return exit_code(run_kernels(*flags)); }; });
}

}  // namespace lanner::cli
