// Expected numbers: Transformers 5.23.0 (PyTorch 2.15.0, fp32), ROPE_INIT_FUNCTIONS of modeling_rope_utils.py, for
// "default" LlamaRotaryEmbedding. A LlamaConfig with head_dim 64, rope_theta 10000 and max_position_embeddings 2048
// unless a test says otherwise; each test states its rope_parameters.

#include <gtest/gtest.h>

#include <vector>

#include "model/decoder.h"

namespace lanner::model {
namespace {

constexpr std::int64_t kTrainedLength = 2048;

RopeSpec rope_of(RopeKind kind, double factor) {
  RopeSpec rope;
  rope.kind = kind;
  rope.rotary_dim = 64;
  rope.factor = factor;
  return rope;
}

struct Expected {
  std::size_t index;
  float frequency;
};

void expect_frequencies(const RopeFrequencies& actual, const std::vector<Expected>& expected) {
  ASSERT_EQ(actual.inverse.size(), 32U);
  for (const auto& [index, frequency] : expected) {
    EXPECT_NEAR(actual.inverse[index], frequency, 1e-6F * frequency) << "frequency " << index;
  }
}

const std::vector<Expected> kDefault{{0, 1.0F},           {1, 0.749894202F},    {5, 0.237137362F},
                                     {10, 0.0562341288F}, {16, 0.00999999978F}, {31, 0.00013335215F}};

TEST(Rope, Default) {
  const RopeFrequencies actual = rope_frequencies(rope_of(RopeKind::kDefault, 1.0), kTrainedLength, kTrainedLength);
  expect_frequencies(actual, kDefault);
  EXPECT_EQ(actual.scale, 1.0F);
}

TEST(Rope, Linear) {  // factor 4
  const RopeFrequencies actual = rope_frequencies(rope_of(RopeKind::kLinear, 4.0), kTrainedLength, kTrainedLength);
  expect_frequencies(actual, {{0, 0.25F},
                              {1, 0.18747355F},
                              {5, 0.0592843406F},
                              {10, 0.0140585322F},
                              {16, 0.00249999994F},
                              {31, 3.33380376e-05F}});
  EXPECT_EQ(actual.scale, 1.0F);
}

// factor 2, with seq_len of 100, 2048, 2049 and 8192.
TEST(Rope, DynamicNtkIsTheDefaultUpToTheTrainedContext) {
  const RopeSpec rope = rope_of(RopeKind::kDynamicNtk, 2.0);
  for (const std::int64_t session_len : {std::int64_t{0}, std::int64_t{100}, kTrainedLength}) {
    const RopeFrequencies actual = rope_frequencies(rope, kTrainedLength, session_len);
    expect_frequencies(actual, kDefault);
    EXPECT_EQ(actual.inverse, rope_frequencies(rope_of(RopeKind::kDefault, 1.0), kTrainedLength, session_len).inverse);
  }
}

TEST(Rope, DynamicNtkRaisesTheBaseForLongerSessions) {
  RopeSpec rope = rope_of(RopeKind::kDynamicNtk, 2.0);
  expect_frequencies(rope_frequencies(rope, kTrainedLength, 2049), {{0, 1.0F},
                                                                    {1, 0.749870598F},
                                                                    {5, 0.237100035F},
                                                                    {10, 0.0562164262F},
                                                                    {16, 0.00999496318F},
                                                                    {31, 0.000133222042F}});
  // Transformers passes original_max_position_embeddings over for this kind: the numbers with 1024 are the same.
  for (const std::int64_t original : {kTrainedLength, std::int64_t{1024}}) {
    rope.original_max_position = original;
    const RopeFrequencies actual = rope_frequencies(rope, kTrainedLength, 8192);
    expect_frequencies(actual, {{0, 1.0F},
                                {1, 0.70426929F},
                                {5, 0.173258215F},
                                {10, 0.0300184153F},
                                {16, 0.00366286025F},
                                {31, 1.90503069e-05F}});
    EXPECT_EQ(actual.scale, 1.0F);
  }
}

TEST(Rope, OtherKindsDoNotDependOnTheSession) {
  for (const RopeKind kind : {RopeKind::kDefault, RopeKind::kLinear, RopeKind::kLlama3, RopeKind::kYarn}) {
    const RopeSpec rope = rope_of(kind, 2.0);
    EXPECT_EQ(rope_frequencies(rope, kTrainedLength, 8192).inverse,
              rope_frequencies(rope, kTrainedLength, 100).inverse);
  }
}

// rope_theta 500000, factor 8, low_freq_factor 1, high_freq_factor 4, original_max_position_embeddings 8192,
// max_position_embeddings 131072. Frequencies up to 14 are kept, 15 to 17 blended, from 18 on divided by 8.
TEST(Rope, Llama3) {
  RopeSpec rope = rope_of(RopeKind::kLlama3, 8.0);
  rope.theta = 500000.0;
  rope.original_max_position = 8192;
  rope.low_freq_factor = 1.0;
  rope.high_freq_factor = 4.0;
  const RopeFrequencies actual = rope_frequencies(rope, 131072, 131072);
  expect_frequencies(actual, {{0, 1.0F},
                              {10, 0.0165604409F},
                              {14, 0.00321144611F},
                              {15, 0.00137189368F},
                              {16, 0.000524846022F},
                              {17, 0.000178507791F},
                              {18, 7.78465546e-05F},
                              {31, 3.7673226e-07F}});
  EXPECT_EQ(actual.scale, 1.0F);
}

// factor 4, original_max_position_embeddings 4096, max_position_embeddings 16384. The ramp begins between dimensions
// 10 and 11 and ends between 22 and 23, so that rounding its ends (truncate) shows in what lies between.
TEST(Rope, Yarn) {
  RopeSpec rope = rope_of(RopeKind::kYarn, 4.0);
  rope.original_max_position = 4096;
  const std::vector<Expected> expected{
      {0, 1.0F},           {9, 0.0749894157F},   {10, 0.0562341288F},   {11, 0.039736785F},    {12, 0.0279739965F},
      {14, 0.0136790723F}, {18, 0.00302799162F}, {22, 0.000547162897F}, {23, 0.000333380362F}, {31, 3.33380376e-05F}};
  RopeFrequencies actual = rope_frequencies(rope, 16384, 16384);
  expect_frequencies(actual, expected);
  EXPECT_NEAR(actual.scale, 1.138629436F, 1e-6F);
  rope.attention_factor = 1.25;
  actual = rope_frequencies(rope, 16384, 16384);
  expect_frequencies(actual, expected);
  EXPECT_EQ(actual.scale, 1.25F);
}

// As before, with beta_fast 16 and beta_slow 2.
TEST(Rope, YarnTakesItsBetas) {
  RopeSpec rope = rope_of(RopeKind::kYarn, 4.0);
  rope.original_max_position = 4096;
  rope.beta_fast = 16.0;
  rope.beta_slow = 2.0;
  expect_frequencies(
      rope_frequencies(rope, 16384, 16384),
      {{11, 0.0421696492F}, {12, 0.0316227786F}, {14, 0.0148189953F}, {18, 0.00281170662F}, {22, 0.000444569858F}});
}

// short_factor 1 + 0.05 i, long_factor 1 + 0.5 i, max_position_embeddings 16384, original_max_position_embeddings 4096;
// of Phi3Config, with seq_len of 4096 and 4097.
TEST(Rope, LongRopeTakesTheListOfTheSession) {
  RopeSpec rope = rope_of(RopeKind::kLongRope, 4.0);
  rope.original_max_position = 4096;
  for (int i = 0; i < 32; ++i) {
    rope.short_factors.push_back(1 + 0.05 * i);
    rope.long_factors.push_back(1 + 0.5 * i);
  }
  const RopeFrequencies up_to = rope_frequencies(rope, 16384, 4096);
  expect_frequencies(up_to,
                     {{0, 1.0F}, {1, 0.71418494F}, {10, 0.0374894217F}, {16, 0.00555555569F}, {31, 5.2294963e-05F}});
  EXPECT_NEAR(up_to.scale, 1.08012345F, 1e-6F);
  const std::vector<Expected> expected{
      {0, 1.0F}, {1, 0.499929428F}, {10, 0.00937235542F}, {16, 0.00111111114F}, {31, 8.08194818e-06F}};
  expect_frequencies(rope_frequencies(rope, 16384, 4097), expected);
  expect_frequencies(rope_frequencies(rope, 16384, 0), expected);  // a session as long as the model was trained for
  rope.attention_factor = 1.25;
  EXPECT_EQ(rope_frequencies(rope, 16384, 4097).scale, 1.25F);
}

}  // namespace
}  // namespace lanner::model
