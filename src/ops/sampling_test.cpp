// From logits to a token, on the device under test: each filter by hand-worked cases, the draw by its distribution, and
// all together by what the host samples.

#include "ops/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <tuple>

#include "ops/ops_test_support.h"

namespace lanner::ops {
namespace {

/// A row that owns what its spans point to.
struct Request {
  std::vector<float> logits;
  SamplingParams params;
  std::vector<std::int32_t> prompt;
  std::vector<std::int32_t> output;
  std::vector<std::int32_t> banned;
  std::vector<std::uint32_t> allowed;  // a mask
  std::vector<LogitBias> bias;

  SampleRow row() const {
    return {.logits = logits,
            .params = &params,
            .prompt_tokens = prompt,
            .output_tokens = output,
            .banned_tokens = banned,
            .allowed_tokens = allowed,
            .logit_bias = bias};
  }
  SampledToken sample() const { return sample_all({row()}).front(); }
  /// The tokens that 2,000 seeds give.
  std::set<std::int32_t> support() const {
    std::vector<SamplingParams> seeded(2000, params);
    std::vector<SampleRow> rows;
    for (std::size_t i = 0; i < seeded.size(); ++i) {
      seeded[i].seed = i;
      rows.push_back(row());
      rows.back().params = &seeded[i];
    }
    std::set<std::int32_t> tokens;
    for (const SampledToken& sampled : sample_all(rows)) tokens.insert(sampled.token);
    return tokens;
  }

  static std::vector<SampledToken> sample_all(const std::vector<SampleRow>& rows) {
    std::vector<SampledToken> tokens(rows.size());
    EXPECT_TRUE(testing::device(1).sample(rows, tokens));  // whoever answers late is waited for
    return tokens;
  }
};

Request greedy(std::vector<float> logits) {
  Request request;
  request.logits = std::move(logits);
  return request;
}

Request random_draw(std::vector<float> logits, float temperature = 1.0F) {
  Request request = greedy(std::move(logits));
  request.params.temperature = temperature;
  return request;
}

using Tokens = std::set<std::int32_t>;

TEST(Sampling, LogSumExpOfEqualLogitsIsTheirValuePlusLogOfTheirNumber) {
  const std::vector<float> logits(8, 3.0F);
  EXPECT_NEAR(log_sum_exp(logits), 3.0 + std::log(8.0), 1e-12);
}

TEST(Sampling, LogSumExpNeitherOverflowsNorVanishes) {
  EXPECT_NEAR(log_sum_exp(std::vector<float>{1000.0F, 1000.0F}), 1000.0 + std::log(2.0), 1e-9);
  EXPECT_NEAR(log_sum_exp(std::vector<float>{-1000.0F, -1000.0F}), -1000.0 + std::log(2.0), 1e-9);
}

TEST(Greedy, TakesTheBestAndAmongEqualsTheLowerId) {
  EXPECT_EQ(greedy({1, 3, 2}).sample().token, 1);
  EXPECT_EQ(greedy({1, 3, 2, 3, 3}).sample().token, 1);
  EXPECT_EQ(greedy({-5}).sample().token, 0);
  EXPECT_EQ(greedy({0.0F, -0.0F}).sample().token, 0);
  EXPECT_EQ(greedy({-0.0F, 0.0F}).sample().token, 0);
}

TEST(Greedy, FindsTheBestWhereverItStands) {
  for (const std::size_t size : {1U, 2U, 15U, 16U, 17U, 47U, 64U}) {
    for (std::size_t place = 0; place < size; ++place) {
      std::vector<float> logits(size, -3.0F);
      logits[place] = -1.0F;
      EXPECT_EQ(greedy(logits).sample().token, static_cast<std::int32_t>(place)) << "of " << size;
      logits.back() = -1.0F;
      EXPECT_EQ(greedy(logits).sample().token, static_cast<std::int32_t>(place)) << "of " << size;
    }
  }
}

TEST(Greedy, IsAlsoWhatTopK1Means) {
  Request request = random_draw({1, 3, 2, 3}, 5.0F);
  request.params.top_k = 1;
  EXPECT_EQ(request.support(), Tokens{1});
}

TEST(RepetitionPenalty, DividesPositiveAndMultipliesNegativeLogits) {
  Request request = greedy({4, 3, -1});
  request.params.repetition_penalty = 2;
  EXPECT_EQ(request.sample().token, 0);
  request.prompt = {0};
  EXPECT_EQ(request.sample().token, 1);  // 2 against 3
  request.prompt = {};
  request.output = {0};
  EXPECT_EQ(request.sample().token, 1);
  Request negative = greedy({-1, -1.5F, -9});
  negative.params.repetition_penalty = 2;
  negative.output = {0};
  EXPECT_EQ(negative.sample().token, 1);  // -2 against -1.5
}

TEST(RepetitionPenalty, CountsATokenOnceHoweverOftenItOccurs) {
  Request request = greedy({4, 1.5F});
  request.params.repetition_penalty = 2;
  request.prompt = {0, 0, 0};
  request.output = {0, 0};
  EXPECT_EQ(request.sample().token, 0);  // 2, and neither 1 nor less
}

TEST(PresencePenalty, IsTakenOnceForTheOutputsTokensOnly) {
  Request request = greedy({4, 3});
  request.params.presence_penalty = 0.75F;
  request.prompt = {0, 0, 0};
  request.output = {0};
  EXPECT_EQ(request.sample().token, 0);  // 3.25
  request.output = {0, 0, 0};
  EXPECT_EQ(request.sample().token, 0);
  request.params.presence_penalty = 1.25F;
  EXPECT_EQ(request.sample().token, 1);
  request.output = {};
  EXPECT_EQ(request.sample().token, 0);
  request.params.presence_penalty = -2;  // a reward
  request.output = {1};
  EXPECT_EQ(request.sample().token, 1);
}

TEST(FrequencyPenalty, IsTakenForEachOccurrenceInTheOutput) {
  Request request = greedy({4, 3, -9});
  request.params.frequency_penalty = 0.4F;
  request.prompt = {0, 0, 0, 0};
  request.output = {0, 2, 0};
  EXPECT_EQ(request.sample().token, 0);  // 3.2
  request.output = {0, 2, 0, 0};
  EXPECT_EQ(request.sample().token, 1);  // 2.8
}

TEST(LogitBias, IsAdded) {
  Request request = greedy({4, 3, 2});
  request.bias = {{2, 1.5F}, {0, -2}, {2, 0.5F}};
  EXPECT_EQ(request.sample().token, 2);  // 2, 3, 4
}

TEST(BannedTokens, NeverComeWhateverTheirBias) {
  Request request = greedy({4, 3, 2});
  request.banned = {0, 1};
  request.bias = {{0, 100}};
  EXPECT_EQ(request.sample().token, 2);
  Request drawn = random_draw({4, 3, 2, 1}, 10.0F);
  drawn.banned = {0, 3};
  EXPECT_EQ(drawn.support(), (Tokens{1, 2}));
}

TEST(BannedTokens, MayLeaveASingleOne) {
  Request request = random_draw({9, 8, -50, 7}, 0.7F);
  request.banned = {0, 1, 3};
  EXPECT_EQ(request.support(), Tokens{2});
  EXPECT_TRUE(request.sample().finite);
}

TEST(AllowedTokens, AreAllThatIsDrawnFrom) {
  Request request = random_draw(std::vector<float>(70, 1.0F), 1.0F);
  request.logits[0] = request.logits[69] = 9;
  request.allowed = {1U << 31U, 1U << 1U, 1U << 3U};
  EXPECT_EQ(request.support(), (Tokens{31, 33, 67}));
  request.params.temperature = 0;
  EXPECT_EQ(request.sample().token, 31);
  request.banned = {31};
  EXPECT_EQ(request.sample().token, 33);
  request.bias = {{67, 2.0F}, {0, 100.0F}};
  EXPECT_EQ(request.sample().token, 67);
  request.params.logprobs = 1;  // of the model, before the mask
  EXPECT_EQ(request.sample().top.front().token, 0);
}

TEST(BannedTokens, AreNoBarWhereAllAreBanned) {
  for (const float temperature : {0.0F, 1.0F}) {
    Request request = random_draw({1, 2, 3}, temperature);
    request.banned = {2, 0, 1};
    EXPECT_EQ(request.sample().token, 0);
    EXPECT_TRUE(request.sample().finite);
  }
}

TEST(TopK, KeepsTheKBestAndTheLowerIdAtTheBorder) {
  Request request = random_draw({1, 2, 2, 2, 0}, 10.0F);
  request.params.top_k = 2;
  EXPECT_EQ(request.support(), (Tokens{1, 2}));
  request.params.top_k = 100;
  EXPECT_EQ(request.support(), (Tokens{0, 1, 2, 3, 4}));
}

TEST(TopP, KeepsTheShortestPrefixThatReachesTheShare) {
  // 0.5, 0.25, 0.125, 0.125 in ids 2, 0, 1, 3.
  Request request = random_draw({std::log(0.25F), std::log(0.125F), std::log(0.5F), std::log(0.125F)});
  const std::tuple<float, Tokens> cases[] = {{0.01F, {2}},        {0.49F, {2}},       {0.51F, {2, 0}},
                                             {0.74F, {2, 0}},     {0.76F, {2, 0, 1}}, {0.9F, {2, 0, 1, 3}},
                                             {1.0F, {2, 0, 1, 3}}};
  for (const auto& [top_p, tokens] : cases) {
    request.params.top_p = top_p;
    EXPECT_EQ(request.support(), tokens) << top_p;
  }
}

TEST(TopP, IsAShareOfWhatTopKLeft) {
  Request request = random_draw({std::log(0.4F), std::log(0.2F), std::log(0.2F), std::log(0.2F)});
  request.params.top_k = 2;
  request.params.top_p = 0.65F;  // 0.4 of 0.6 is 0.67
  EXPECT_EQ(request.support(), Tokens{0});
}

TEST(MinP, DropsWhatIsBelowAShareOfTheBest) {
  Request request = random_draw({std::log(0.5F), std::log(0.3F), std::log(0.15F), std::log(0.05F)});
  request.params.min_p = 0.25F;
  EXPECT_EQ(request.support(), (Tokens{0, 1, 2}));
  request.params.min_p = 0.55F;
  EXPECT_EQ(request.support(), (Tokens{0, 1}));
  request.params.min_p = 1.0F;
  EXPECT_EQ(request.support(), Tokens{0});
}

TEST(Temperature, ComesBeforeTopP) {
  Request request = random_draw({std::log(0.6F), std::log(0.4F)});
  request.params.top_p = 0.65F;
  EXPECT_EQ(request.support(), (Tokens{0, 1}));
  request.params.temperature = 0.25F;  // 0.6^4 : 0.4^4 is 0.835 : 0.165
  EXPECT_EQ(request.support(), Tokens{0});
}

/// What each seed draws as its output grows, as a request does.
std::vector<double> counts_of_draws(const Request& request, std::uint64_t seeds, std::size_t draws_of_each) {
  const std::vector<std::int32_t> output(draws_of_each, 0);
  std::vector<double> counts(request.logits.size());
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    SamplingParams params = request.params;
    params.seed = seed;
    std::vector<SampleRow> rows(draws_of_each, request.row());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].params = &params;
      rows[i].output_tokens = std::span(output).first(i);
    }
    for (const SampledToken& sampled : Request::sample_all(rows)) ++counts[static_cast<std::size_t>(sampled.token)];
  }
  return counts;
}

TEST(Draw, FollowsTheProbabilities) {
  for (const float temperature : {0.5F, 1.0F, 2.0F}) {
    const Request request = random_draw({0.3F, -1.0F, 1.2F, 0.0F, -0.4F, 0.9F, -2.0F, 0.1F}, temperature);
    constexpr int kDraws = 20000;
    const std::vector<double> counts = counts_of_draws(request, 10, kDraws / 10);
    double sum = 0;
    for (const float logit : request.logits) sum += std::exp(static_cast<double>(logit / temperature));
    double chi_square = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const double expected = kDraws * std::exp(static_cast<double>(request.logits[i] / temperature)) / sum;
      chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    EXPECT_LT(chi_square, 24.3) << "temperature " << temperature;  // 7 degrees of freedom: 1 in 1,000 lies above
  }
}

TEST(Draw, RepeatsForASeedAndDependsOnSeedAndPosition) {
  constexpr std::size_t kDraws = 100;
  const Request request = random_draw(std::vector<float>(1000, 0.0F));
  const std::vector<std::int32_t> output(kDraws, 5);
  std::vector<SamplingParams> seeded(kDraws, request.params);
  std::vector<SampleRow> rows(2 * kDraws, request.row());  // a seed each, then a position each
  for (std::size_t i = 0; i < kDraws; ++i) {
    seeded[i].seed = i;
    rows[i].params = &seeded[i];
    rows[kDraws + i].output_tokens = std::span(output).first(i);
  }
  const std::vector<SampledToken> drawn = Request::sample_all(rows);
  const std::vector<SampledToken> again = Request::sample_all(rows);
  Tokens by_seed;
  Tokens by_position;
  for (std::size_t i = 0; i < kDraws; ++i) {
    by_seed.insert(drawn[i].token);
    by_position.insert(drawn[kDraws + i].token);
  }
  for (std::size_t i = 0; i < drawn.size(); ++i) EXPECT_EQ(drawn[i].token, again[i].token) << i;
  EXPECT_GT(by_seed.size(), 80U);
  EXPECT_GT(by_position.size(), 80U);
}

TEST(Draw, DoesNotDependOnThePrompt) {  // so that a preempted request, whose output becomes prompt work, repeats
  Request request = random_draw(std::vector<float>(1000, 0.0F));
  const std::int32_t token = request.sample().token;
  request.prompt = {1, 2, 3};
  EXPECT_EQ(request.sample().token, token);
}

TEST(Logprobs, AreOfTheRawModel) {
  Request request = random_draw({1, 2, 3, 2}, 0.5F);
  request.params.logprobs = 2;
  request.params.repetition_penalty = 1.7F;
  request.output = {2, 2};
  request.params.frequency_penalty = 1;
  request.banned = {2};
  request.params.top_p = 0.01F;
  const SampledToken token = request.sample();
  const double total = std::log(std::exp(1.0) + 2 * std::exp(2.0) + std::exp(3.0));
  EXPECT_EQ(token.token, 1);
  EXPECT_NEAR(static_cast<double>(token.logprob), 2 - total, 1e-6);
  ASSERT_EQ(token.top.size(), 2U);
  EXPECT_EQ(token.top[0].token, 2);
  EXPECT_NEAR(static_cast<double>(token.top[0].logprob), 3 - total, 1e-6);
  EXPECT_EQ(token.top[1].token, 1);  // of the two with logit 2 the lower id
  EXPECT_NEAR(static_cast<double>(token.top[1].logprob), 2 - total, 1e-6);
}

TEST(Logprobs, ComeAsManyAsWereAskedFor) {
  Request request = greedy({1, 2, 3});
  EXPECT_EQ(request.sample().logprob, 0.0F);
  EXPECT_TRUE(request.sample().top.empty());
  request.params.logprobs = 0;
  EXPECT_NEAR(request.sample().logprob, -0.40760596F, 1e-6);
  EXPECT_TRUE(request.sample().top.empty());
  request.params.logprobs = 100;
  EXPECT_EQ(request.sample().top.size(), 3U);
}

TEST(Logprobs, OfLargeLogitsDoNotOverflow) {
  Request request = greedy({1000, 999, -1000});
  request.params.logprobs = 3;
  const SampledToken token = request.sample();
  EXPECT_NEAR(token.logprob, -0.31326169F, 1e-6);
  EXPECT_NEAR(token.top[2].logprob, -2000.3133F, 1e-3);
}

TEST(NotANumber, IsReported) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity}) {
    for (const std::size_t place : {0U, 50U, 100U}) {
      Request request = greedy(std::vector<float>(101, 1.0F));
      EXPECT_TRUE(request.sample().finite);
      request.logits[place] = poison;
      EXPECT_FALSE(request.sample().finite);
    }
  }
}

TEST(Scratch, MayBeReusedForAnotherVocabulary) {
  std::vector<TokenLogprob> scratch;
  const SamplingParams params{.temperature = 1.0F, .top_k = 2};
  const std::vector<float> large(100, -1.0F);
  const std::vector<float> small = {5.0F, -50.0F, -50.0F};
  EXPECT_LT(sample_row({.logits = large,
                        .params = &params,
                        .prompt_tokens = {},
                        .output_tokens = {},
                        .banned_tokens = {},
                        .logit_bias = {}},
                       scratch)
                .token,
            2);
  EXPECT_EQ(sample_row({.logits = small,
                        .params = &params,
                        .prompt_tokens = {},
                        .output_tokens = {},
                        .banned_tokens = {},
                        .logit_bias = {}},
                       scratch)
                .token,
            0);
}

/// A request with everything that a request may ask for, at random.
Request random_request(std::int32_t vocab, testing::Random& random) {
  const auto one_of = [&](std::initializer_list<float> values) {
    return values.begin()[random.below(static_cast<std::int64_t>(values.size()))];
  };
  const auto tokens = [&](std::int64_t most) {
    std::vector<std::int32_t> list(static_cast<std::size_t>(random.below(most + 1)));
    for (std::int32_t& token : list) token = static_cast<std::int32_t>(random.below(vocab));
    return list;
  };
  Request request;
  const float spread = one_of({0.01F, 3.0F, 12.0F});
  request.logits = random.vector(vocab, -spread, spread);
  if (random.below(2) == 0) {
    for (float& logit : request.logits) logit = std::round(logit * 16) / 16;  // many are equal
  }
  request.params = {.temperature = one_of({0.0F, 0.4F, 1.0F, 1.0F, 7.0F, 300.0F}),
                    .top_k = static_cast<std::int32_t>(one_of({0, 0, 1, 2, 40, 3000})),
                    .top_p = one_of({1.0F, 1.0F, 0.95F, 0.5F, 0.0F}),
                    .min_p = one_of({0.0F, 0.0F, 0.02F, 1.0F}),
                    .repetition_penalty = one_of({1.0F, 1.0F, 1.3F, 0.7F}),
                    .presence_penalty = one_of({0.0F, 0.0F, 0.9F}),
                    .frequency_penalty = one_of({0.0F, 0.0F, 0.3F, -0.2F}),
                    .seed = static_cast<std::uint64_t>(random.below(1 << 30)),
                    .logprobs = static_cast<std::int32_t>(one_of({-1, -1, -1, 0, 5, 1024}))};
  request.prompt = tokens(100);
  request.output = tokens(60);
  if (random.below(2) == 0) request.banned = tokens(5);
  if (random.below(3) == 0) {
    request.allowed.resize(words_of_mask(static_cast<std::size_t>(vocab)));
    for (const std::int32_t token : tokens(200)) {
      request.allowed[static_cast<std::size_t>(token / 32)] |= 1U << static_cast<unsigned>(token % 32);
    }
  }
  if (random.below(2) == 0) {
    for (const std::int32_t token : tokens(40)) request.bias.push_back({token, random.uniform(-9, 9)});
  }
  return request;
}

TEST(Sampling, EveryRowOfAStepGetsTheTokenThatTheHostSamples) {
  testing::Random random(77);
  for (const std::int32_t vocab : {1, 2, 31, 1000, 4097, 50257, 151936}) {
    std::vector<Request> requests;
    std::vector<SampleRow> rows;
    for (int i = 0; i < 40; ++i) requests.push_back(random_request(vocab, random));
    requests[3].logits.back() = std::numeric_limits<float>::quiet_NaN();
    for (const Request& request : requests) rows.push_back(request.row());
    const std::vector<SampledToken> sampled = Request::sample_all(rows);
    std::vector<TokenLogprob> scratch;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const SampledToken expected = sample_row(rows[i], scratch);
      const SamplingParams& params = *rows[i].params;
      ASSERT_EQ(sampled[i].finite, expected.finite) << "row " << i << " of " << vocab;
      if (!expected.finite) continue;
      EXPECT_EQ(sampled[i].token, expected.token)
          << "row " << i << " of " << vocab << ": temperature " << params.temperature << ", top-k " << params.top_k
          << ", top-p " << params.top_p << ", min-p " << params.min_p;
      EXPECT_NEAR(sampled[i].logprob, expected.logprob, 1e-6F * (1 + std::abs(expected.logprob)));
      ASSERT_EQ(sampled[i].top.size(), expected.top.size());
      for (std::size_t j = 0; j < expected.top.size(); ++j) {
        ASSERT_EQ(sampled[i].top[j].token, expected.top[j].token) << "row " << i << " of " << vocab << ", best " << j;
        const float logprob = expected.top[j].logprob;
        ASSERT_NEAR(sampled[i].top[j].logprob, logprob, 1e-6F * (1 + std::abs(logprob)));
      }
    }
  }
}

TEST(Sampling, EqualLogitsAreDrawnInOrderOfTheirIds) {
  Request request = random_draw(std::vector<float>(20000, 1.5F));
  for (const std::int32_t top_k : {0, 3, 15000}) {
    request.params.top_k = top_k;
    const double count = top_k == 0 ? 20000 : top_k;
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      request.params.seed = seed;
      EXPECT_EQ(request.sample().token, static_cast<std::int32_t>(uniform_at(seed, 0) * count));
    }
  }
}

TEST(UniformAt, IsSpreadOverTheUnitIntervalForNeighbouringSeedsAndPositions) {
  std::vector<int> by_index(100);
  std::vector<int> by_seed(100);
  double product = 0;  // of neighbours: independent ones average 1/4
  for (std::uint64_t i = 0; i < 100000; ++i) {
    const double u = uniform_at(7, i);
    const double v = uniform_at(i, 3);
    ASSERT_TRUE(u >= 0 && u < 1 && v >= 0 && v < 1);
    ++by_index[static_cast<std::size_t>(u * 100)];
    ++by_seed[static_cast<std::size_t>(v * 100)];
    product += u * uniform_at(7, i + 1);
  }
  for (const std::vector<int>& counts : {by_index, by_seed}) {
    double chi_square = 0;
    for (const int count : counts) chi_square += (count - 1000.0) * (count - 1000.0) / 1000;
    EXPECT_LT(chi_square, 149);  // 99 degrees of freedom: 1 in 1,000 lies above
    EXPECT_GT(chi_square, 60);   // and as many below: too even is not random either
  }
  EXPECT_NEAR(product / 100000, 0.25, 0.003);
  EXPECT_NE(uniform_at(1, 2), uniform_at(2, 1));
  // No seed's numbers are another's, shifted: the step from one position to the next is no distance between seeds.
  EXPECT_NE(uniform_at(5, 4), uniform_at(5 + 0x9E3779B97F4A7C15U, 3));
}

TEST(NegativeLogLikelihood, NotFiniteLogitsShowInTheResult) {
  EXPECT_FALSE(std::isfinite(negative_log_likelihood(std::vector<float>{0.0F, NAN}, 0)));
  EXPECT_FALSE(std::isfinite(negative_log_likelihood(std::vector<float>{NAN, 0.0F}, 1)));
  EXPECT_FALSE(std::isfinite(negative_log_likelihood(std::vector<float>{0.0F, INFINITY}, 0)));
}

TEST(NegativeLogLikelihood, ByHand) {
  // exp: 1, 2, 5; probabilities 1/8, 2/8, 5/8
  const std::vector<float> logits{0.0F, std::log(2.0F), std::log(5.0F)};
  EXPECT_NEAR(negative_log_likelihood(logits, 0), std::log(8.0), 1e-6);
  EXPECT_NEAR(negative_log_likelihood(logits, 1), std::log(4.0), 1e-6);
  EXPECT_NEAR(negative_log_likelihood(logits, 2), std::log(1.6), 1e-6);
}

}  // namespace
}  // namespace lanner::ops
