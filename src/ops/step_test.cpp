// Whole steps on the device's own memory: announced ones, which a device may repeat without being told the operations
// again, and steps whose tokens are those of a step before that nobody has read yet.

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "ops/ops_test_support.h"

namespace lanner::ops {
namespace {

using testing::bare_device;
using testing::Random;

constexpr std::int64_t kHidden = 64;
constexpr std::int64_t kVocab = 96;
constexpr std::int64_t kMostRows = 48;

/// A model of an embedding and a head: its best token is easy to work out.
class TinyModel {
 public:
  TinyModel() : table_values_(random_.vector(kVocab * kHidden)), head_values_(random_.vector(kVocab * kHidden)) {
    const auto floats = [](std::int64_t count) {
      return reinterpret_cast<float*>(*bare_device().allocate(count * 4, "a test's activations"));
    };
    x_ = floats(kMostRows * kHidden);
    logits_ = floats(kMostRows * kVocab);
    const auto weight = [](const std::vector<float>& values) {
      return *bare_device().pack(testing::dense_weight(values.data(), kVocab, kHidden), Arithmetic::kExact);
    };
    table_ = weight(table_values_);
    head_.parts = {{.weight = weight(head_values_), .bias = nullptr}};
  }

  void forward(const Batch& batch) {
    std::vector<std::int32_t> rows(static_cast<std::size_t>(batch.rows));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int32_t>(i);
    const StepPlan plan{
        .model = this, .batch = batch, .cache = {}, .logits = rows, .hidden = {}, .most_rows = kMostRows};
    const auto operations = [&] {
      bare_device().embed(*table_, batch, 1.0F, x_);
      bare_device().norm_head(head_, x_, rows, logits_);
    };
    const bool repeated = bare_device().begin_step(plan);
    repeated_ += repeated ? 1 : 0;
    if (!repeated) operations();
    while (!bare_device().end_step()) operations();
    const Status failure = bare_device().take_failure();
    EXPECT_TRUE(failure.ok()) << failure.message();
  }
  /// Of the last forward().
  std::vector<float> logits(std::int64_t rows) const {
    std::vector<float> values(static_cast<std::size_t>(rows * kVocab));
    bare_device().read(logits_, rows * kVocab, values.data());
    return values;
  }
  std::vector<SampleRow> greedy_rows(std::int64_t rows) const {
    std::vector<SampleRow> result(static_cast<std::size_t>(rows));
    for (std::int64_t i = 0; i < rows; ++i) {
      result[static_cast<std::size_t>(i)].logits = {logits_ + i * kVocab, kVocab};
      result[static_cast<std::size_t>(i)].params = &greedy_;
    }
    return result;
  }
  double expected_logit(std::int32_t token, std::int64_t output) const {
    double sum = 0;
    for (std::int64_t i = 0; i < kHidden; ++i) {
      sum += static_cast<double>(table_values_[static_cast<std::size_t>(token * kHidden + i)]) *
             static_cast<double>(head_values_[static_cast<std::size_t>(output * kHidden + i)]);
    }
    return sum;
  }
  std::int32_t expected_token(std::int32_t token) const {
    std::int32_t best = 0;
    for (std::int32_t i = 1; i < kVocab; ++i) {
      if (expected_logit(token, i) > expected_logit(token, best)) best = i;
    }
    return best;
  }
  int repeated() const { return repeated_; }

 private:
  Random random_{5};
  std::vector<float> table_values_;  // (vocab, hidden)
  std::vector<float> head_values_;   // (vocab, hidden)
  std::shared_ptr<const PackedWeight> table_;
  Linear head_;
  SamplingParams greedy_;
  float* x_ = nullptr;       // (kMostRows, hidden)
  float* logits_ = nullptr;  // (kMostRows, vocab)
  int repeated_ = 0;
};

/// A batch of one row a sequence.
class DecodeStep {
 public:
  explicit DecodeStep(std::vector<std::int32_t> tokens) : tokens_(std::move(tokens)) {
    positions_.assign(tokens_.size(), 70);
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      slices_.push_back(
          {.first_row = static_cast<std::int32_t>(i), .rows = 1, .first_position = 70, .blocks = blocks_});
    }
  }
  DecodeStep(DecodeStep&&) = delete;
  Batch batch() const {
    return {.rows = static_cast<std::int32_t>(tokens_.size()),
            .tokens = tokens_,
            .positions = positions_,
            .slices = slices_};
  }

 private:
  const std::vector<std::int32_t> blocks_{1, 0};
  std::vector<std::int32_t> tokens_;
  std::vector<std::int32_t> positions_;
  std::vector<SequenceSlice> slices_;
};

std::vector<std::int32_t> random_tokens(std::int64_t count, Random& random) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random.below(kVocab));
  return tokens;
}

void decode_and_check(TinyModel& model, const std::vector<std::int32_t>& tokens) {
  const auto rows = static_cast<std::int64_t>(tokens.size());
  model.forward(DecodeStep(tokens).batch());
  const std::vector<float> logits = model.logits(rows);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t output = 0; output < kVocab; ++output) {
      const double expected = model.expected_logit(tokens[static_cast<std::size_t>(row)], output);
      ASSERT_NEAR(logits[static_cast<std::size_t>(row * kVocab + output)], expected, 1e-4) << "row " << row;
    }
  }
}

/// A step of one long prompt, of which nothing is wanted.
void announce_prompt(std::int32_t rows) {
  const std::vector<std::int32_t> zeros(static_cast<std::size_t>(rows));
  std::vector<std::int32_t> blocks(static_cast<std::size_t>((rows + kKvBlockTokens - 1) / kKvBlockTokens));
  const std::vector<SequenceSlice> slices{{.first_row = 0, .rows = rows, .first_position = 0, .blocks = blocks}};
  const Batch batch{.rows = rows, .tokens = zeros, .positions = zeros, .slices = slices};
  EXPECT_FALSE(bare_device().begin_step(
      {.model = &batch, .batch = batch, .cache = {}, .logits = {}, .hidden = {}, .most_rows = rows}));
  EXPECT_TRUE(bare_device().end_step());
}

TEST(Steps, AreRepeatedWithNewContents) {
  TinyModel model;
  Random random(6);
  for (int round = 0; round < 4; ++round) {
    for (const std::int64_t rows : {1, 2, 3, 8, 9, 16, 17, 40, 48}) {
      SCOPED_TRACE(::testing::Message() << "round " << round << ", " << rows << " rows");
      decode_and_check(model, random_tokens(rows, random));
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
  // Nine shapes in eight places or fewer: all but the first two rounds are repetitions.
  const int at_least = is_cuda(test_device()) ? 18 : 0;
  EXPECT_GE(model.repeated(), at_least);
}

TEST(Steps, AreRepeatedBehindOneWhoseListsNeedMoreMemory) {
  TinyModel model;
  Random random(8);
  for (int round = 0; round < 4; ++round) {
    SCOPED_TRACE(round);
    for (int i = 0; i < 3; ++i) decode_and_check(model, random_tokens(16, random));
    if (::testing::Test::HasFatalFailure()) return;
    announce_prompt(20000 << round);
  }
}

TEST(Steps, MayBeBuiltOnTokensThatNobodyHasRead) {
  TinyModel model;
  Backend& device = bare_device();
  Random random(7);
  for (int round = 0; round < 4; ++round) {
    const std::vector<std::int32_t> tokens = random_tokens(11, random);
    model.forward(DecodeStep(tokens).batch());
    std::vector<SampledToken> first(tokens.size());
    const bool answered = device.sample(model.greedy_rows(11), first);
    // The second step has fewer rows, in another order.
    std::vector<std::int32_t> next;
    for (std::int32_t row = 10; row >= 0; row -= 2) {
      next.push_back(answered ? first[static_cast<std::size_t>(row)].token : sampled_token(row));
    }
    model.forward(DecodeStep(next).batch());
    std::vector<SampledToken> second(next.size());
    const bool answered_again = device.sample(model.greedy_rows(6), second);
    EXPECT_EQ(answered, answered_again);
    if (!answered) device.collect(first);
    if (!answered_again) device.collect(second);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      EXPECT_EQ(first[i].token, model.expected_token(tokens[i])) << "row " << i;
    }
    for (std::size_t i = 0; i < second.size(); ++i) {
      EXPECT_EQ(second[i].token, model.expected_token(first[10 - 2 * i].token)) << "row " << i;
    }
  }
}

TEST(Steps, PenaltiesKnowTokensThatNobodyHasRead) {
  TinyModel model;
  Backend& device = bare_device();
  const std::vector<std::int32_t> tokens = {3, 41, 90};
  model.forward(DecodeStep(tokens).batch());
  std::vector<SampledToken> first(3);
  const bool answered = device.sample(model.greedy_rows(3), first);
  const auto token_of = [&](std::int32_t row) {
    return answered ? first[static_cast<std::size_t>(row)].token : sampled_token(row);
  };
  model.forward(DecodeStep(tokens).batch());  // the same logits again: a penalty must change the token
  std::vector<SampleRow> rows = model.greedy_rows(3);
  const SamplingParams penalized{.presence_penalty = 100, .logprobs = 1};
  const std::vector<std::int32_t> outputs[] = {{token_of(0)}, {}, {7, token_of(2)}};
  for (const std::size_t row : {0U, 2U}) {
    rows[row].params = &penalized;
    rows[row].output_tokens = outputs[row];
  }
  std::vector<SampledToken> second(3);
  const bool answered_again = device.sample(rows, second);
  if (!answered) device.collect(first);
  if (!answered_again) device.collect(second);
  EXPECT_EQ(second[1].token, first[1].token);
  EXPECT_TRUE(second[1].top.empty());
  for (const std::size_t row : {0U, 2U}) {
    EXPECT_NE(second[row].token, first[row].token);
    ASSERT_EQ(second[row].top.size(), 1U);
    EXPECT_EQ(second[row].top[0].token, first[row].token);  // of the raw model
    EXPECT_LT(second[row].logprob, second[row].top[0].logprob);
  }
}

}  // namespace
}  // namespace lanner::ops
