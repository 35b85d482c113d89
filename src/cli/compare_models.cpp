#include "cli/compare_models.h"

#include <fmt/format.h>

#include <utility>

#include "cli/output.h"
#include "cli/progress_bar.h"
#include "eval/dataset.h"

namespace lanner::cli {
namespace {

/// The text as both models' tokens, which must be the same ones: else there is nothing to compare.
Result<std::vector<std::int32_t>> common_tokens(const Pipeline& reference, const Pipeline& test,
                                                const std::string& text) {
  LANNER_ASSIGN_OR_RETURN(auto tokens, reference.encode(text, /*add_special_tokens=*/false));
  LANNER_ASSIGN_OR_RETURN(const auto others, test.encode(text, /*add_special_tokens=*/false));
  if (tokens == others) return tokens;
  return invalid_argument(
      fmt::format("{} and {} cut the text into different tokens: their predictions cannot be compared",
                  reference.model_name(), test.model_name()));
}

}  // namespace

PipelineOptions for_windows(PipelineOptions options, std::int64_t seqlen) {
  if (options.engine.session_len == 0) options.engine.session_len = static_cast<std::int32_t>(seqlen);
  options.engine.max_batch_size = 1;
  options.engine.enable_prefix_caching = false;
  return options;
}

Result<ComparedModels> compare_models(const CompareOptions& options) {
  ComparedModels models;
  LANNER_ASSIGN_OR_RETURN(models.test_options, pipeline_options(options.test));
  LANNER_ASSIGN_OR_RETURN(PipelineOptions reference_options, pipeline_options(options.reference));
  LANNER_ASSIGN_OR_RETURN(const std::string reference_path, resolve_model(options.reference));
  LANNER_ASSIGN_OR_RETURN(const std::string test_path, resolve_model(options.test));
  LANNER_ASSIGN_OR_RETURN(const eval::Dataset dataset, eval::read_dataset(options.dataset, eval::data_folders()));
  reference_options = for_windows(std::move(reference_options), options.seqlen);
  models.test_options = for_windows(std::move(models.test_options), options.seqlen);
  const bool show = stderr_is_terminal();
  LANNER_ASSIGN_OR_RETURN(models.reference, open_with_progress(reference_path, reference_options, show));
  LANNER_ASSIGN_OR_RETURN(models.test, open_with_progress(test_path, models.test_options, show));
  LANNER_ASSIGN_OR_RETURN(const auto tokens, common_tokens(*models.reference, *models.test, dataset.text));
  models.text_tokens = static_cast<std::int64_t>(tokens.size());

  ProgressBar bar("comparing");
  const eval::WindowOptions windows{
      .seqlen = options.seqlen,
      .max_windows = options.max_windows,
      .progress = [&bar](std::int64_t done, std::int64_t total) { bar.set(done, total); }};
  const auto measured = eval::compare_engines(models.reference->engine(), models.test->engine(), tokens, windows);
  bar.clear();
  LANNER_RETURN_IF_ERROR(measured.status());
  models.figures = *measured;
  return models;
}

std::string comparison_table(const CompareOptions& options, const ComparedModels& models) {
  const eval::Comparison& result = models.figures;
  return fmt::format(
      "reference          {}, {}\n"
      "model              {}, {}\n"
      "predictions        {} in {} windows of {}\n"
      "mean KL            {:.3e}\n"
      "99th percentile    {:.3e}\n"
      "top-1 agreement    {:.3f} %\n"
      "perplexity         {:.4f} reference, {:.4f} model\n"
      "perplexity ratio   {:.6f}\n",
      models.reference->model_name(), options.reference.dtype, models.test->model_name(), options.test.dtype,
      result.predictions, result.windows, options.seqlen, result.mean_kl, result.percentile_99_kl,
      100 * result.top1_agreement, result.reference_perplexity, result.test_perplexity, result.perplexity_ratio);
}

}  // namespace lanner::cli
