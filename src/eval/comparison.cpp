#include "eval/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "core/aligned_buffer.h"
#include "eval/token_scores.h"
#include "ops/sampling.h"

namespace lanner::eval {
namespace {

struct Sums {
  double reference_nll = 0;
  double test_nll = 0;
  std::int64_t same_best = 0;
  std::vector<double> kl;  // (predictions)
};

Status compare_window(Engine& reference, Engine& test, std::span<const std::int32_t> window,
                      std::span<float> kept,  // (seqlen, vocab) the reference's logits
                      Sums& sums) {
  const auto vocab = static_cast<std::size_t>(reference.vocab_size());
  LANNER_RETURN_IF_ERROR(run_window(reference, window, [&](std::int64_t row, std::span<const float> logits) {
    std::copy(logits.begin(), logits.end(), kept.begin() + row * static_cast<std::ptrdiff_t>(vocab));
  }));
  return run_window(test, window, [&](std::int64_t row, std::span<const float> logits) {
    const auto at = static_cast<std::size_t>(row);
    const std::span<const float> expected = kept.subspan(at * vocab, vocab);
    sums.reference_nll += ops::negative_log_likelihood(expected, window[at + 1]);
    sums.test_nll += ops::negative_log_likelihood(logits, window[at + 1]);
    sums.same_best += best_token(expected) == best_token(logits) ? 1 : 0;
    sums.kl.push_back(kl_divergence(expected, logits));
  });
}

}  // namespace

Result<Comparison> compare_engines(Engine& reference, Engine& test, std::span<const std::int32_t> tokens,
                                   const WindowOptions& options) {
  if (reference.vocab_size() != test.vocab_size()) {
    return invalid_argument(fmt::format("the models have {} and {} tokens: their predictions cannot be compared",
                                        reference.vocab_size(), test.vocab_size()));
  }
  LANNER_RETURN_IF_ERROR(checked_windows(test, tokens, options).status());
  LANNER_ASSIGN_OR_RETURN(const auto windows, checked_windows(reference, tokens, options));
  const std::int64_t floats = options.seqlen * reference.vocab_size();
  LANNER_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::allocate(floats * 4, "one window's reference logits"));
  const std::span<float> kept(buffer.as<float>(), static_cast<std::size_t>(floats));

  const auto count = static_cast<std::int64_t>(windows.size());
  Sums sums;
  for (std::int64_t index = 0; index < count; ++index) {
    if (options.progress) options.progress(index, count);
    LANNER_RETURN_IF_ERROR(compare_window(reference, test, windows[static_cast<std::size_t>(index)], kept, sums));
    if (!std::isfinite(sums.reference_nll) || !std::isfinite(sums.test_nll)) {
      return internal_error(fmt::format("window {}: the logits are not finite", index));
    }
  }
  if (options.progress) options.progress(count, count);

  const auto predictions = static_cast<double>(sums.kl.size());
  Comparison result;
  result.windows = count;
  result.predictions = static_cast<std::int64_t>(sums.kl.size());
  result.mean_kl = std::accumulate(sums.kl.begin(), sums.kl.end(), 0.0) / predictions;
  result.top1_agreement = static_cast<double>(sums.same_best) / predictions;
  result.reference_perplexity = std::exp(sums.reference_nll / predictions);
  result.test_perplexity = std::exp(sums.test_nll / predictions);
  result.perplexity_ratio = result.test_perplexity / result.reference_perplexity;
  result.percentile_99_kl = percentile(std::move(sums.kl), 99);
  return result;
}

}  // namespace lanner::eval
