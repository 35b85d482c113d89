// The real 135M model against Transformers in fp32: golden_smollm2.json, made by make_decoder_golden.py.

#include <algorithm>
#include <cmath>
#include <ranges>

#include "engine/prompt_outputs.h"
#include "real_model.h"

namespace lanner::test {
namespace {

std::unique_ptr<Engine> open(const char* variable, ComputeType dtype, bool deterministic) {
  EngineOptions options = test_engine_options();
  options.dtype = dtype;
  options.deterministic = deterministic;
  options.session_len = 1024;
  options.max_batch_size = 32;
  return open_model(variable, options);
}

std::unique_ptr<Engine> open(const char* variable, ComputeType dtype) {
  return open(variable, dtype, test_engine_options().deterministic);
}

/// All prompts at once, greedy, with the first logits.
std::vector<Answer> answer_goldens(Engine& engine, const std::vector<Golden>& goldens) {
  std::vector<Request> requests;
  for (const Golden& golden : goldens) {
    requests.push_back({.prompt = golden.prompt,
                        .max_new_tokens = static_cast<std::int32_t>(golden.greedy.size()),
                        .wants = {.logits = RequestWants::Logits::kGenerated}});
  }
  return answer(engine, std::move(requests));
}

double largest_logit_error(const Golden& golden, const Answer& answer) {
  double largest = 0;
  for (std::size_t i = 0; i < golden.logit_ids.size(); ++i) {
    const float ours = answer.first_logits[static_cast<std::size_t>(golden.logit_ids[i])];
    largest = std::max(largest, static_cast<double>(std::fabs(ours - golden.logits[i])));
  }
  double sum = 0;
  for (const float logit : answer.first_logits) sum += std::exp(static_cast<double>(logit) - golden.log_sum_exp);
  return std::max(largest, std::fabs(std::log(sum)));
}

void expect_golden(const char* variable, double bound) {
  const auto goldens = read_goldens();
  ASSERT_EQ(goldens.size(), 32U);
  const auto engine = open(variable, ComputeType::kFloat32);
  ASSERT_NE(engine, nullptr);
  const auto answers = answer_goldens(*engine, goldens);
  double largest = 0;
  for (std::size_t i = 0; i < goldens.size(); ++i) {
    EXPECT_EQ(answers[i].tokens, goldens[i].greedy) << goldens[i].name;
    const double error = largest_logit_error(goldens[i], answers[i]);
    EXPECT_LT(error, bound) << goldens[i].name;
    largest = std::max(largest, error);
  }
  std::printf("largest logit error %.2e, bound %.0e\n", largest, bound);
}

TEST(Golden, FolderInFloat32) { expect_golden("LANNER_TEST_MODEL_DIR", 2e-3); }

TEST(Golden, GgufInFloat32) { expect_golden("LANNER_TEST_GGUF", 1e-3); }

// The default arithmetic rounds activations to 15 bits and the cache to fp16: logits move by some thousandths, and a
// greedy token only where the two best were that close.
TEST(Golden, GgufByDefault) {
  const auto goldens = read_goldens();
  const auto engine = open("LANNER_TEST_GGUF", ComputeType::kAuto);
  ASSERT_NE(engine, nullptr);
  const auto answers = answer_goldens(*engine, goldens);
  std::size_t same = 0;
  double largest = 0;
  for (std::size_t i = 0; i < goldens.size(); ++i) {
    same += answers[i].tokens == goldens[i].greedy ? 1 : 0;
    largest = std::max(largest, largest_logit_error(goldens[i], answers[i]));
  }
  std::printf("%zu of 32 answers identical, largest logit error %.2e\n", same, largest);
  EXPECT_LT(largest, 0.1);
  EXPECT_GE(same, 28U);
}

void expect_embeddings(Engine& engine, const std::vector<std::vector<std::int32_t>>& prompts, Pooling pooling,
                       const std::vector<const std::vector<float>*>& expected) {
  const auto embeddings = get_embeddings(engine, prompts, pooling, /*normalize=*/false);
  ASSERT_TRUE(embeddings.ok()) << embeddings.status().message();
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    ASSERT_EQ((*embeddings)[i].size(), expected[i]->size());
    for (std::size_t d = 0; d < expected[i]->size(); ++d) {
      EXPECT_NEAR((*embeddings)[i][d], (*expected[i])[d], 2e-4) << "prompt " << i << ", element " << d;
    }
  }
}

TEST(Golden, CrossEntropyAndEmbeddingsInFloat32) {
  const auto engine = open("LANNER_TEST_MODEL_DIR", ComputeType::kFloat32);
  ASSERT_NE(engine, nullptr);
  std::vector<std::vector<std::int32_t>> prompts;
  std::vector<double> losses;
  std::vector<const std::vector<float>*> last;
  std::vector<const std::vector<float>*> mean;
  const auto goldens = read_goldens();
  for (const Golden& golden : goldens) {
    if (golden.hidden_last.empty()) continue;
    prompts.push_back(golden.prompt);
    losses.push_back(golden.cross_entropy);
    last.push_back(&golden.hidden_last);
    mean.push_back(&golden.hidden_mean);
  }
  ASSERT_EQ(prompts.size(), 4U);
  const auto ppl = get_ppl(*engine, prompts);
  ASSERT_TRUE(ppl.ok()) << ppl.status().message();
  for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR((*ppl)[i], losses[i], 2e-5);
  expect_embeddings(*engine, prompts, Pooling::kLast, last);
  expect_embeddings(*engine, prompts, Pooling::kMean, mean);
}

// The margin rule: an answer may leave the reference's only at a token whose lead over the runner-up is below the
// bound. What comes after it is another text.
void expect_margin_rule(Engine* engine, const char* variable, const char* dtype_name, double bound) {
  SCOPED_TRACE(dtype_name);
  ASSERT_NE(engine, nullptr);
  const auto goldens = read_goldens();
  const auto answers = answer_goldens(*engine, goldens);
  std::size_t same = 0;
  double largest = 0;
  for (std::size_t i = 0; i < goldens.size(); ++i) {
    const Golden& golden = goldens[i];
    const std::vector<std::int32_t>& tokens = answers[i].tokens;
    largest = std::max(largest, largest_logit_error(golden, answers[i]));
    ASSERT_EQ(tokens.size(), golden.greedy.size()) << golden.name;
    const auto differs = std::ranges::mismatch(tokens, golden.greedy);
    if (differs.in1 == tokens.end()) {
      ++same;
      continue;
    }
    const auto step = static_cast<std::size_t>(differs.in1 - tokens.begin());
    std::printf("%s, %s, first difference: %s, token %zu: %d, not %d; margin %.4f\n", variable, dtype_name,
                golden.name.c_str(), step, *differs.in1, *differs.in2, golden.margins[step]);
    EXPECT_LT(golden.margins[step], bound) << golden.name << ", token " << step;
  }
  std::printf("%s, %s: %zu of %zu answers identical, largest logit error %.2e, margin bound %.2f\n", variable,
              dtype_name, same, goldens.size(), largest, bound);
}

void expect_margin_rule(const char* variable, ComputeType dtype, const char* dtype_name, double bound) {
  expect_margin_rule(open(variable, dtype).get(), variable, dtype_name, bound);
}

// What people get who choose nothing: where a processor has bf16 products, prompts' attention and many rows use them.
TEST(Golden, GgufInTheFastModeByTheMarginRule) {
  const char* variable = "LANNER_TEST_GGUF";
  expect_margin_rule(open(variable, ComputeType::kAuto, /*deterministic=*/false).get(), variable, "auto", 0.05);
}

TEST(Golden, GgufByTheMarginRule) {
  expect_margin_rule("LANNER_TEST_GGUF", ComputeType::kFloat16, "float16", 0.05);
  expect_margin_rule("LANNER_TEST_GGUF", ComputeType::kBFloat16, "bfloat16", 0.25);
}

// On the CPU dense weights are computed with in fp32, whatever the type.
TEST(Golden, FolderByTheMarginRuleOnCuda) {
  expect_margin_rule("LANNER_TEST_MODEL_DIR", ComputeType::kFloat16, "float16", 0.05);
  expect_margin_rule("LANNER_TEST_MODEL_DIR", ComputeType::kBFloat16, "bfloat16", 0.25);
}

}  // namespace
}  // namespace lanner::test
