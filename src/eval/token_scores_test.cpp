#include "eval/token_scores.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

namespace lanner::eval {
namespace {

TEST(TokenScores, BestTokenIsTheFirstOfEquals) { EXPECT_EQ(best_token(std::vector<float>{0.0F, 2.0F, 2.0F}), 1); }

TEST(TokenScores, DivergenceByHand) {
  // p = (1/2, 1/2), q = (1/4, 3/4): KL = log 2 / 2 + log(2/3) / 2
  const std::vector<float> p{0.0F, 0.0F};
  const std::vector<float> q{0.0F, std::log(3.0F)};
  EXPECT_NEAR(kl_divergence(p, q), 0.5 * std::log(2.0) + 0.5 * std::log(2.0 / 3.0), 1e-7);
  EXPECT_NEAR(kl_divergence(q, p), 0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-7);
  EXPECT_EQ(kl_divergence(q, q), 0.0);
  // The same distribution, its logits shifted.
  EXPECT_NEAR(kl_divergence(q, std::vector<float>{5.0F, 5.0F + std::log(3.0F)}), 0.0, 1e-6);
}

TEST(TokenScores, ImpossibleTokensAddNothing) {
  const std::vector<float> p{0.0F, -INFINITY};
  EXPECT_NEAR(kl_divergence(p, std::vector<float>{0.0F, 0.0F}), std::log(2.0), 1e-12);
}

TEST(TokenScores, PercentileIsTheNearestRank) {
  std::vector<double> values(200);
  std::iota(values.rbegin(), values.rend(), 1.0);  // 200 ... 1
  EXPECT_EQ(percentile(values, 99), 198.0);
  EXPECT_EQ(percentile(values, 100), 200.0);
  EXPECT_EQ(percentile(values, 0), 1.0);
  EXPECT_EQ(percentile({7.0}, 99), 7.0);
}

TEST(TokenScores, WindowsFollowEachOtherAndAShortLastOneIsDropped) {
  std::vector<std::int32_t> tokens(11);
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto windows = cut_windows(tokens, 4, 0);
  ASSERT_EQ(windows.size(), 2U);
  EXPECT_EQ(windows[0].front(), 0);
  EXPECT_EQ(windows[1].front(), 4);
  EXPECT_EQ(windows[1].back(), 7);
  EXPECT_EQ(cut_windows(tokens, 4, 1).size(), 1U);
  EXPECT_EQ(cut_windows(tokens, 11, 9).size(), 1U);
  EXPECT_TRUE(cut_windows(tokens, 12, 0).empty());
}

}  // namespace
}  // namespace lanner::eval
