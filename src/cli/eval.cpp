// lanner eval: how good a model is, and what a faster arithmetic costs it.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <utility>

#include "cli/arguments.h"
#include "cli/compare_models.h"
#include "cli/engine_flags.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/verbs.h"
#include "eval/dataset.h"
#include "eval/perplexity.h"
#include "eval/report.h"

namespace lanner::cli {
namespace {

struct EvalOptions {
  EngineFlags engine;
  std::string dataset = "wikitext2";
  std::int64_t seqlen = 1024;
  std::int64_t max_windows = 0;
  std::string json;
  // compare
  std::string reference;
  std::string reference_dtype = "float32";
};

void add_eval_flags(CLI::App& verb, EvalOptions& options) {
  verb.add_option(
      "--dataset", options.dataset,
      "A data set (wikitext2 comes with the program), a text file, or a .jsonl file of {\"text\": …} lines");
  limit(verb.add_option("--seqlen", options.seqlen, "Tokens of a window"), 2, 1 << 25);
  limit(verb.add_option("--max-windows", options.max_windows, "Stop after this many windows; 0: the whole text"), 0,
        1 << 25);
  verb.add_option("--json", options.json, "Write the figures into this file")->type_name("FILE");
  add_engine_flags(verb, options.engine);
}

eval::WindowOptions window_options(const EvalOptions& options, ProgressBar& bar) {
  return {.seqlen = options.seqlen,
          .max_windows = options.max_windows,
          .progress = [&bar](std::int64_t done, std::int64_t total) { bar.set(done, total); }};
}

nlohmann::ordered_json dataset_json(const EvalOptions& options, std::size_t text_tokens) {
  return {{"name", options.dataset},
          {"text_tokens", text_tokens},
          {"seqlen", options.seqlen},
          {"max_windows", options.max_windows}};
}

Status run_perplexity(const EvalOptions& options) {
  LANNER_ASSIGN_OR_RETURN(PipelineOptions pipeline_flags, pipeline_options(options.engine));
  LANNER_ASSIGN_OR_RETURN(const std::string path, resolve_model(options.engine));
  LANNER_ASSIGN_OR_RETURN(const eval::Dataset dataset, eval::read_dataset(options.dataset, eval::data_folders()));
  pipeline_flags = for_windows(std::move(pipeline_flags), options.seqlen);
  LANNER_ASSIGN_OR_RETURN(const auto pipeline, open_with_progress(path, pipeline_flags, stderr_is_terminal()));
  LANNER_ASSIGN_OR_RETURN(const auto tokens, pipeline->encode(dataset.text, /*add_special_tokens=*/false));

  ProgressBar bar("perplexity");
  const auto measured = eval::measure_perplexity(pipeline->engine(), tokens, window_options(options, bar));
  bar.clear();
  LANNER_RETURN_IF_ERROR(measured.status());
  const eval::Perplexity& result = *measured;
  // The table comes first: a report that cannot be written must not cost the measurement.
  Status shown =
      write_stdout(fmt::format("tokens      {} in {} windows of {}\n"
                               "mean NLL    {:.6f}\n"
                               "perplexity  {:.4f}\n",
                               result.tokens, result.windows, options.seqlen, result.mean_nll, result.perplexity));
  if (!options.json.empty()) {
    nlohmann::ordered_json report = eval::report_head("perplexity", *pipeline, pipeline_flags.engine);
    report["dataset"] = dataset_json(options, tokens.size());
    report["windows"] = result.windows;
    report["tokens"] = result.tokens;
    report["predictions"] = result.predictions;
    report["mean_nll"] = result.mean_nll;
    report["perplexity"] = result.perplexity;
    report["window_nll"] = result.window_nll;
    LANNER_RETURN_IF_ERROR(eval::write_report(report, options.json));
  }
  return shown;
}

Status run_compare(const EvalOptions& options) {
  CompareOptions compare{.reference = options.engine,
                         .test = options.engine,
                         .dataset = options.dataset,
                         .seqlen = options.seqlen,
                         .max_windows = options.max_windows};
  compare.reference.model = options.reference;
  compare.reference.dtype = options.reference_dtype;
  compare.reference.quant_policy = EngineFlags{}.quant_policy;
  if (options.engine.model.empty()) {
    compare.test.model = options.reference;
  } else {  // what the flags say of a checkpoint, they say of the model's
    compare.reference.model_format = EngineFlags{}.model_format;
    compare.reference.revision = EngineFlags{}.revision;
  }
  LANNER_ASSIGN_OR_RETURN(const ComparedModels models, compare_models(compare));
  const eval::Comparison& result = models.figures;
  Status shown = write_stdout(comparison_table(compare, models));
  if (!options.json.empty()) {
    nlohmann::ordered_json report = eval::report_head("compare", *models.test, models.test_options.engine);
    report["reference"] = models.reference->model_name();
    report["reference_dtype"] = options.reference_dtype;
    report["dataset"] = dataset_json(options, static_cast<std::size_t>(models.text_tokens));
    report["windows"] = result.windows;
    report["predictions"] = result.predictions;
    report["mean_kl"] = result.mean_kl;
    report["percentile_99_kl"] = result.percentile_99_kl;
    report["top1_agreement"] = result.top1_agreement;
    report["reference_perplexity"] = result.reference_perplexity;
    report["test_perplexity"] = result.test_perplexity;
    report["perplexity_ratio"] = result.perplexity_ratio;
    LANNER_RETURN_IF_ERROR(eval::write_report(report, options.json));
  }
  return shown;
}

}  // namespace

void add_eval(CLI::App& program, Run& run) {
  CLI::App* group = program.add_subcommand("eval", "Measure how well a model predicts text");

  auto perplexity = std::make_shared<EvalOptions>();
  CLI::App* verb = group->add_subcommand("perplexity", "Perplexity on a text");
  verb->add_option("MODEL", perplexity->engine.model, kModelHelp)->required();
  add_eval_flags(*verb, *perplexity);
  verb->callback([&run, perplexity] { run = [perplexity] { return exit_code(run_perplexity(*perplexity)); }; });

  auto compare = std::make_shared<EvalOptions>();
  verb = group->add_subcommand("compare", "How far a model's predictions are from a reference's, on a text");
  verb->add_option("REFERENCE", compare->reference, kModelHelp)->required();
  verb->add_option("MODEL", compare->engine.model,
                   "What is compared with it; without it the reference itself, computed as --dtype says");
  add_choice(*verb, "--reference-dtype", compare->reference_dtype, {"auto", "float16", "bfloat16", "float32"},
             "Arithmetic of the reference");
  add_eval_flags(*verb, *compare);
  verb->callback([&run, compare] { run = [compare] { return exit_code(run_compare(*compare)); }; });
}

}  // namespace lanner::cli
