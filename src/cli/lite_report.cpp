#include "cli/lite_report.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "cli/compare_models.h"
#include "cli/output.h"
#include "cli/verbs.h"

namespace lanner::cli {
namespace {

constexpr std::int32_t kAnswerTokens = 48;
constexpr double kBadRatio = 1.10;  // of perplexities
constexpr std::array<const char*, 3> kQuestions{"What is the capital of France?", "Explain what a computer program is.",
                                                "Write one sentence about the sea."};

/// Greedy, by the model's own template; the plain text continued where it has none.
std::string answer_of(Pipeline& pipeline, const std::string& question) {
  GenerationRequest request;
  request.config = {.max_new_tokens = kAnswerTokens, .do_sample = false};
  request.messages = {{"user", question}};
  auto answer = pipeline.generate(request);
  if (!answer.ok()) {
    request.messages.clear();
    request.prompt = question;
    answer = pipeline.generate(std::move(request));
  }
  return answer.ok() ? answer->texts.front() : "(" + answer.status().message() + ")";
}

std::string sample_answers(const ComparedModels& models) {
  std::string text;
  for (const char* question : kQuestions) {
    text += fmt::format("\n{}\n  before: {}\n  after:  {}\n", question, answer_of(*models.reference, question),
                        answer_of(*models.test, question));
  }
  return text;
}

}  // namespace

Status print_lite_report(const LiteReport& report) {
  CompareOptions options{.seqlen = report.seqlen, .max_windows = report.windows};
  static_cast<ModelFlags&>(options.reference) = report.source;
  options.reference.threads = report.threads;
  options.test.model = report.result;
  options.test.model_format = report.model_format;
  options.test.threads = report.threads;
  const auto models = compare_models(options);
  if (models.status().code() == StatusCode::kNotFound) {  // the text: a program without its data
    warn(fmt::format("the model is there, but it was not measured: {}", models.status().message()));
    return {};
  }
  if (!models.ok()) return with_context(models.status(), "the model is there, but it cannot be measured");
  LANNER_RETURN_IF_ERROR(write_stdout(printable(
      fmt::format("\nQuality on WikiText-2's test split (lanner eval compare {} {} --reference-dtype auto --seqlen {} "
                  "--max-windows {})\n{}{}",
                  report.source.model, report.result, report.seqlen, report.windows, comparison_table(options, *models),
                  sample_answers(*models)))));
  if (models->figures.perplexity_ratio > kBadRatio) {
    warn(fmt::format("perplexity rose by {:.1f} %: {}", 100 * (models->figures.perplexity_ratio - 1), report.advice));
  }
  return {};
}

}  // namespace lanner::cli
