#include "pipeline/generation_settings.h"

#include <gtest/gtest.h>

#include "pipeline/pipeline_test_support.h"

namespace lanner {
namespace {

TEST(ResolveSampling, RequestThenModelThenDefaults) {
  const SamplingOptions plain = resolve_sampling({}, {});
  EXPECT_FLOAT_EQ(plain.temperature, 0.8F);
  EXPECT_FLOAT_EQ(plain.top_p, 0.8F);
  EXPECT_EQ(plain.top_k, 40);
  EXPECT_FLOAT_EQ(plain.repetition_penalty, 1.0F);

  model::GenerationDefaults model;
  model.temperature = 0.6;
  model.top_p = 0.95;
  model.repetition_penalty = 1.1;
  const SamplingOptions suggested = resolve_sampling({}, model);
  EXPECT_FLOAT_EQ(suggested.temperature, 0.6F);
  EXPECT_FLOAT_EQ(suggested.top_p, 0.95F);
  EXPECT_EQ(suggested.top_k, 40);
  EXPECT_FLOAT_EQ(suggested.repetition_penalty, 1.1F);

  GenerationConfig config;
  config.temperature = 1.5F;
  config.top_k = 7;
  config.repetition_penalty = 1.0F;
  const SamplingOptions asked = resolve_sampling(config, model);
  EXPECT_FLOAT_EQ(asked.temperature, 1.5F);
  EXPECT_FLOAT_EQ(asked.top_p, 0.95F);
  EXPECT_EQ(asked.top_k, 7);
  EXPECT_FLOAT_EQ(asked.repetition_penalty, 1.0F);
}

TEST(ResolveSampling, Greedy) {
  GenerationConfig off;
  off.do_sample = false;
  off.temperature = 0.9F;
  EXPECT_EQ(resolve_sampling(off, {}).temperature, 0.0F);

  model::GenerationDefaults greedy_model;
  greedy_model.do_sample = false;
  EXPECT_EQ(resolve_sampling({}, greedy_model).temperature, 0.0F);
  // Who sets what only sampling has wants sampling.
  GenerationConfig asks;
  asks.top_k = 50;
  EXPECT_FLOAT_EQ(resolve_sampling(asks, greedy_model).temperature, 0.8F);
  GenerationConfig on;
  on.do_sample = true;
  EXPECT_FLOAT_EQ(resolve_sampling(on, greedy_model).temperature, 0.8F);
}

TEST(ResolveSampling, SeedsAreDrawnUnlessGiven) {
  EXPECT_NE(resolve_sampling({}, {}).seed, resolve_sampling({}, {}).seed);
  GenerationConfig config;
  config.seed = 7;
  EXPECT_EQ(resolve_sampling(config, {}).seed, 7U);
}

TEST(ResolveStops, SpecialWordsBecomeIds) {
  const auto tokenizer = make_byte_tokenizer();
  GenerationConfig config;
  config.stop = {"END", "<bos>"};
  config.stop_ids = {65};
  const auto rules = resolve_stops(config, {kTestEos}, {"<|im_end|>", "A"}, *tokenizer);
  ASSERT_TRUE(rules.ok());
  EXPECT_EQ(rules->ids, (std::vector<std::int32_t>{kTestEos, kTestImEnd, 65, kTestBos}));
  EXPECT_EQ(rules->strings, (std::vector<std::string>{"<|im_end|>", "A", "END", "<bos>"}));
}

TEST(ResolveStops, IgnoreEosKeepsTheRequestsOwn) {
  const auto tokenizer = make_byte_tokenizer();
  GenerationConfig config;
  config.ignore_eos = true;
  config.stop = {"END"};
  config.stop_ids = {65};
  const auto rules = resolve_stops(config, {kTestEos}, {"<|im_end|>"}, *tokenizer);
  ASSERT_TRUE(rules.ok());
  EXPECT_EQ(rules->ids, (std::vector<std::int32_t>{65}));
  EXPECT_EQ(rules->strings, (std::vector<std::string>{"END"}));
}

TEST(ResolveStops, RefusesWhatCanNeverMatch) {
  const auto tokenizer = make_byte_tokenizer();
  GenerationConfig config;
  config.stop = {""};
  EXPECT_EQ(resolve_stops(config, {}, {}, *tokenizer).status().code(), StatusCode::kInvalidArgument);
  config.stop = {"\xFF"};
  EXPECT_EQ(resolve_stops(config, {}, {}, *tokenizer).status().code(), StatusCode::kInvalidArgument);
}

TEST(ResolveBadWords, BothSpellings) {
  const auto tokenizer = make_byte_tokenizer();
  const auto words = resolve_bad_words({"no"}, *tokenizer);
  ASSERT_TRUE(words.ok());
  EXPECT_EQ(*words, (std::vector<std::vector<std::int32_t>>{{'n', 'o'}, {' ', 'n', 'o'}}));
  EXPECT_EQ(resolve_bad_words({""}, *tokenizer).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(resolve_bad_words({"\xFF"}, *tokenizer).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lanner
