#include "eval/token_scores.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "ops/sampling.h"

namespace lanner::eval {

std::int32_t best_token(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double kl_divergence(std::span<const float> reference, std::span<const float> test) {
  LANNER_CHECK(reference.size() == test.size());
  const double reference_sum = ops::log_sum_exp(reference);
  const double test_sum = ops::log_sum_exp(test);
  double divergence = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double log_p = static_cast<double>(reference[i]) - reference_sum;
    const double log_q = static_cast<double>(test[i]) - test_sum;
    const double p = std::exp(log_p);
    if (p > 0) divergence += p * (log_p - log_q);  // a token that cannot occur adds nothing, whatever q says
  }
  return divergence;
}

double percentile(std::vector<double> values, double percent) {
  LANNER_CHECK(!values.empty());
  const auto count = static_cast<double>(values.size());
  const double rank = std::clamp(std::ceil(percent / 100.0 * count), 1.0, count);
  const auto place = values.begin() + static_cast<std::ptrdiff_t>(rank) - 1;
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

std::vector<std::span<const std::int32_t>> cut_windows(std::span<const std::int32_t> tokens, std::int64_t seqlen,
                                                       std::int64_t max_windows) {
  LANNER_CHECK(seqlen > 0);
  auto count = static_cast<std::int64_t>(tokens.size()) / seqlen;
  if (max_windows > 0) count = std::min(count, max_windows);
  std::vector<std::span<const std::int32_t>> windows;
  for (std::int64_t i = 0; i < count; ++i) {
    windows.push_back(tokens.subspan(static_cast<std::size_t>(i * seqlen), static_cast<std::size_t>(seqlen)));
  }
  return windows;
}

}  // namespace lanner::eval
