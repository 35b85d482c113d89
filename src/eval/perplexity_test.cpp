#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "engine/chunked_logits_engine.h"
#include "eval/comparison.h"

namespace lanner::eval {
namespace {

constexpr std::int32_t kVocab = 10;

/// Token 1 with a half, all others alike, whatever came before.
std::vector<float> one_is_likely(const std::vector<std::int32_t>& /*prompt*/, std::int32_t /*position*/) {
  std::vector<float> row(kVocab, 0.0F);
  row[1] = std::log(9.0F);
  return row;
}

/// After token t, t + 1 is 9 times as likely as all others together.
std::vector<float> counting(const std::vector<std::int32_t>& prompt, std::int32_t position) {
  std::vector<float> row(kVocab, 0.0F);
  row[static_cast<std::size_t>(prompt[static_cast<std::size_t>(position)] + 1) % kVocab] = std::log(81.0F);
  return row;
}

std::vector<std::int32_t> count_to(std::int32_t size) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(size));
  std::iota(tokens.begin(), tokens.end(), 0);
  for (std::int32_t& token : tokens) token %= kVocab;
  return tokens;
}

TEST(Perplexity, ByHand) {
  // Windows 0 1 1 | 5 5 1: predictions 1 1 5 1 with p = 1/2, 1/2, 1/18, 1/2; the last two tokens make no window.
  ChunkedLogitsEngine engine(kVocab, 2, one_is_likely);
  const std::vector<std::int32_t> tokens{0, 1, 1, 5, 5, 1, 1, 1};
  const auto result = measure_perplexity(engine, tokens, {.seqlen = 3});
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->windows, 2);
  EXPECT_EQ(result->tokens, 6);
  EXPECT_EQ(result->predictions, 4);
  const double total = 3 * std::log(2.0) + std::log(18.0);
  EXPECT_NEAR(result->mean_nll, total / 4, 1e-6);
  EXPECT_NEAR(result->perplexity, std::pow(8.0 * 18.0, 0.25), 1e-5);
  ASSERT_EQ(result->window_nll.size(), 2U);
  EXPECT_NEAR(result->window_nll[0], std::log(2.0), 1e-6);
  EXPECT_NEAR(result->window_nll[1], (std::log(18.0) + std::log(2.0)) / 2, 1e-6);
  EXPECT_TRUE(engine.wants_all());
}

TEST(Perplexity, RowsPredictTheTokenAfterTheirsWhateverTheChunks) {
  for (const std::int32_t chunk : {1, 2, 3, 7, 64}) {
    ChunkedLogitsEngine engine(kVocab, chunk, counting);
    const auto result = measure_perplexity(engine, count_to(45), {.seqlen = 15});
    ASSERT_TRUE(result.ok()) << result.status().message();
    EXPECT_EQ(result->predictions, 3 * 14);
    EXPECT_NEAR(result->perplexity, 90.0 / 81.0, 1e-6) << chunk;
  }
}

TEST(Perplexity, StopsAfterMaxWindowsAndReportsProgress) {
  ChunkedLogitsEngine engine(kVocab, 4, counting);
  std::vector<std::int64_t> seen;
  const auto result =
      measure_perplexity(engine, count_to(45), {.seqlen = 15, .max_windows = 2, .progress = [&](auto done, auto total) {
                                                  EXPECT_EQ(total, 2);
                                                  seen.push_back(done);
                                                }});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->windows, 2);
  EXPECT_EQ(seen, (std::vector<std::int64_t>{0, 1, 2}));
}

TEST(Perplexity, RefusesWhatMakesNoWindow) {
  ChunkedLogitsEngine engine(kVocab, 4, counting);
  EXPECT_EQ(measure_perplexity(engine, count_to(10), {.seqlen = 11}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(measure_perplexity(engine, count_to(10), {.seqlen = 1}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(measure_perplexity(engine, count_to(99), {.seqlen = 65}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(measure_perplexity(engine, std::vector<std::int32_t>{1, kVocab}, {.seqlen = 2}).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(Perplexity, FailuresOfTheEngineArePassedOn) {
  ChunkedLogitsEngine engine(kVocab, 4, counting);
  engine.failure = resource_exhausted("no blocks");
  EXPECT_EQ(measure_perplexity(engine, count_to(20), {.seqlen = 10}).status().message(), "no blocks");
}

TEST(Perplexity, ALostRowIsNoticed) {
  for (const std::int32_t lost : {0, 5, 9}) {
    ChunkedLogitsEngine engine(kVocab, 4, counting);
    engine.lost_row = lost;
    EXPECT_EQ(measure_perplexity(engine, count_to(20), {.seqlen = 10}).status().code(), StatusCode::kInternal) << lost;
  }
}

TEST(Perplexity, LogitsThatAreNotFiniteAreAnError) {
  ChunkedLogitsEngine engine(kVocab, 4, [](const auto&, std::int32_t) { return std::vector<float>(kVocab, NAN); });
  EXPECT_EQ(measure_perplexity(engine, count_to(20), {.seqlen = 10}).status().code(), StatusCode::kInternal);
}

TEST(Comparison, ByHand) {
  ChunkedLogitsEngine reference(kVocab, 3, one_is_likely);
  ChunkedLogitsEngine test(kVocab, 4, [](const auto&, std::int32_t position) {
    std::vector<float> row(kVocab, 0.0F);
    if (position % 2 == 0) row[1] = std::log(9.0F);  // else all alike
    return row;
  });
  // Predicts tokens 1..4 from rows 0..3: rows 0 and 2 are equal, 1 and 3 uniform.
  const std::vector<std::int32_t> tokens{0, 1, 1, 1, 1};
  const auto result = compare_engines(reference, test, tokens, {.seqlen = 5});
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->predictions, 4);
  const double kl = 0.5 * std::log(5.0) + 0.5 * std::log(10.0 / 18.0);
  EXPECT_NEAR(result->mean_kl, kl / 2, 1e-6);
  EXPECT_NEAR(result->percentile_99_kl, kl, 1e-6);
  EXPECT_NEAR(result->top1_agreement, 0.5, 1e-12);  // the best of equals is token 0
  EXPECT_NEAR(result->reference_perplexity, 2.0, 1e-6);
  EXPECT_NEAR(result->test_perplexity, std::sqrt(20.0), 1e-5);
  EXPECT_NEAR(result->perplexity_ratio, std::sqrt(5.0), 1e-5);
}

TEST(Comparison, OfAnEngineFromItselfIsNothing) {
  ChunkedLogitsEngine reference(kVocab, 3, counting);
  ChunkedLogitsEngine test(kVocab, 5, counting);
  const auto result = compare_engines(reference, test, count_to(40), {.seqlen = 20});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->mean_kl, 0.0);
  EXPECT_EQ(result->top1_agreement, 1.0);
  EXPECT_EQ(result->perplexity_ratio, 1.0);
  EXPECT_EQ(result->windows, 2);
}

TEST(Comparison, RefusesDifferentVocabularies) {
  ChunkedLogitsEngine reference(kVocab, 3, counting);
  ChunkedLogitsEngine test(kVocab + 1, 3, counting);
  EXPECT_EQ(compare_engines(reference, test, count_to(40), {.seqlen = 20}).status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lanner::eval
