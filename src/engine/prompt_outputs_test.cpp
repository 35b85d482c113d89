#include "engine/prompt_outputs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "engine/chunked_logits_engine.h"
#include "engine/open_engine.h"
#include "engine/random_checkpoint.h"

namespace lanner {
namespace {

constexpr std::int32_t kVocab = 10;

/// Logit t of the row after position p of a prompt is p * 100 + t.
std::vector<float> numbered(const std::vector<std::int32_t>& /*prompt*/, std::int32_t position) {
  std::vector<float> row(kVocab);
  for (std::int32_t t = 0; t < kVocab; ++t) row[static_cast<std::size_t>(t)] = static_cast<float>(position * 100 + t);
  return row;
}

/// After any token, token 1 is as likely as all nine others together.
std::vector<float> one_is_likely(const std::vector<std::int32_t>& /*prompt*/, std::int32_t /*position*/) {
  std::vector<float> row(kVocab, 0.0F);
  row[1] = std::log(9.0F);
  return row;
}

TEST(GetLogits, PutsEachRowAtItsTokenWhateverTheChunks) {
  for (const std::int32_t chunk : {1, 2, 3, 64}) {
    ChunkedLogitsEngine engine(kVocab, chunk, numbered);
    const auto result = get_logits(engine, std::vector<std::int32_t>{3, 1, 4, 1, 5});
    ASSERT_TRUE(result.ok()) << result.status().message();
    ASSERT_EQ(result->rows, 5);
    ASSERT_EQ(result->vocab, kVocab);
    for (std::int32_t row = 0; row < 5; ++row) {
      for (std::int32_t t = 0; t < kVocab; ++t) {
        EXPECT_EQ(result->values.as<float>()[row * kVocab + t], static_cast<float>(row * 100 + t));
      }
    }
    EXPECT_TRUE(engine.wants_all());
  }
}

TEST(GetLogits, ReportsALostRowAndAnEnginesFailure) {
  ChunkedLogitsEngine losing(kVocab, 2, numbered);
  losing.lost_row = 2;
  EXPECT_EQ(get_logits(losing, std::vector<std::int32_t>{1, 2, 3, 4}).status().code(), StatusCode::kInternal);
  ChunkedLogitsEngine failing(kVocab, 2, numbered);
  failing.failure = Status(StatusCode::kResourceExhausted, "no room");
  EXPECT_EQ(get_logits(failing, std::vector<std::int32_t>{1, 2}).status().message(), "no room");
}

TEST(GetPpl, IsTheMeanCrossEntropyByHand) {
  ChunkedLogitsEngine engine(kVocab, 2, one_is_likely);
  // Predictions 1 1 with p = 1/2 each; and 5 1 7 with p = 1/18, 1/2, 1/18.
  const auto losses = get_ppl(engine, {{0, 1, 1}, {1, 5, 1, 7}});
  ASSERT_TRUE(losses.ok()) << losses.status().message();
  ASSERT_EQ(losses->size(), 2U);
  EXPECT_NEAR((*losses)[0], std::log(2.0), 1e-6);
  EXPECT_NEAR((*losses)[1], (2 * std::log(18.0) + std::log(2.0)) / 3, 1e-6);
}

TEST(GetPpl, RefusesWhatPredictsNothing) {
  ChunkedLogitsEngine engine(kVocab, 2, one_is_likely);
  EXPECT_EQ(get_ppl(engine, {{1, 2}, {1}}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(get_ppl(engine, {{1, kVocab}}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(get_ppl(engine, {{1, -1}}).status().code(), StatusCode::kInvalidArgument);
}

TEST(GetEmbeddings, MeanOfTheLastStatesOfAllPrefixes) {
  // Causal attention: the hidden state of token i is the last one of the prompt that ends there.
  auto opened = open_engine(make_random_checkpoint({}), {.dtype = ComputeType::kFloat32, .session_len = 256}, nullptr);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  Engine& engine = *opened->engine;
  std::vector<std::int32_t> prompt(7);
  std::iota(prompt.begin(), prompt.end(), 11);
  std::vector<std::vector<std::int32_t>> prefixes;
  for (std::size_t size = 1; size <= prompt.size(); ++size) {
    prefixes.emplace_back(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(size));
  }
  const auto last = get_embeddings(engine, prefixes, Pooling::kLast, /*normalize=*/false);
  const auto mean = get_embeddings(engine, {prompt}, Pooling::kMean, /*normalize=*/false);
  const auto unit = get_embeddings(engine, {prompt}, Pooling::kMean, /*normalize=*/true);
  ASSERT_TRUE(last.ok() && mean.ok() && unit.ok());
  double squares = 0;
  double unit_squares = 0;
  for (std::size_t i = 0; i < mean->front().size(); ++i) {
    double expected = 0;
    for (const auto& state : *last) expected += static_cast<double>(state[i]) / static_cast<double>(last->size());
    EXPECT_NEAR(mean->front()[i], expected, 1e-5);
    squares += std::pow(static_cast<double>(mean->front()[i]), 2);
    unit_squares += std::pow(static_cast<double>(unit->front()[i]), 2);
  }
  EXPECT_NEAR(unit_squares, 1.0, 1e-5);
  for (std::size_t i = 0; i < mean->front().size(); ++i) {
    EXPECT_NEAR(static_cast<double>(unit->front()[i]) * std::sqrt(squares), mean->front()[i], 1e-5);
  }
}

TEST(PromptOutputs, FailWhereTheModelComputesNoNumber) {
  auto opened =
      open_engine(make_random_checkpoint({.poisoned_tensor = "model.layers.1.post_attention_layernorm.weight"}),
                  {.dtype = ComputeType::kFloat32, .session_len = 256}, nullptr);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  EXPECT_EQ(get_ppl(*opened->engine, {{1, 2, 3}}).status().code(), StatusCode::kInternal);
  const auto embeddings = get_embeddings(*opened->engine, {{1, 2, 3}}, Pooling::kMean, /*normalize=*/false);
  EXPECT_EQ(embeddings.status().code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace lanner
