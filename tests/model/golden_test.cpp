// The real 135M model against Transformers in fp32: golden_smollm2.json, made by make_decoder_golden.py.
//
// LANNER_TEST_GGUF is the GGUF file, LANNER_TEST_MODEL_DIR the same weights as a Hugging Face folder; `make test` sets
// both.

#include <gtest/gtest.h>

#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "engine/open_engine.h"

namespace lanner {
namespace {

struct Golden {
  std::string name;
  std::vector<std::int32_t> prompt;
  std::vector<std::int32_t> greedy;
  std::vector<std::int32_t> logit_ids;
  std::vector<float> logits;  // of logit_ids, after the prompt
  double log_sum_exp = 0;
};

/// What the engine made of one prompt.
struct Answer {
  std::vector<std::int32_t> tokens;
  std::vector<float> first_logits;  // (vocab)
};

std::vector<Golden> read_goldens() {
  std::ifstream file(LANNER_GOLDEN_FILE);
  const nlohmann::json document = nlohmann::json::parse(file);
  std::vector<Golden> goldens;
  for (const auto& entry : document.at("prompts")) {
    goldens.push_back({entry.at("name"), entry.at("prompt"), entry.at("greedy"), entry.at("logit_ids"),
                       entry.at("logits"), entry.at("log_sum_exp")});
  }
  return goldens;
}

std::unique_ptr<Engine> open(const char* variable, ComputeType dtype) {
  const char* path = std::getenv(variable);
  if (path == nullptr) {
    ADD_FAILURE() << variable << " is not set: `make test` sets it";
    return nullptr;
  }
  auto checkpoint = model::open_checkpoint(path);
  if (!checkpoint.ok()) {
    ADD_FAILURE() << checkpoint.status().message();
    return nullptr;
  }
  EngineOptions options;
  options.dtype = dtype;
  options.session_len = 1024;
  options.max_batch_size = 32;
  auto opened = open_engine(*checkpoint, options, nullptr);
  if (!opened.ok()) {
    ADD_FAILURE() << opened.status().message();
    return nullptr;
  }
  return std::move(opened->engine);
}

/// All prompts at once, greedy, 64 tokens each.
std::vector<Answer> answer(Engine& engine, const std::vector<Golden>& goldens) {
  std::vector<Answer> answers(goldens.size());
  std::mutex mutex;
  std::condition_variable ended;
  std::size_t left = goldens.size();
  for (std::size_t i = 0; i < goldens.size(); ++i) {
    Request request{.prompt = goldens[i].prompt,
                    .max_new_tokens = static_cast<std::int32_t>(goldens[i].greedy.size()),
                    .wants = {.logits = RequestWants::Logits::kGenerated}};
    request.on_event = [&, i](const Event& event) {
      Answer& mine = answers[i];  // the engine's thread alone writes it
      if (event.kind == Event::Kind::kToken) mine.tokens.push_back(event.token);
      if (event.kind == Event::Kind::kLogits && mine.first_logits.empty()) {
        mine.first_logits.assign(event.values.begin(), event.values.end());
      }
      if (event.kind != Event::Kind::kFinal) return;
      const std::lock_guard lock(mutex);
      if (--left == 0) ended.notify_all();
    };
    const auto id = engine.submit(std::move(request));
    EXPECT_TRUE(id.ok()) << id.status().message();
  }
  std::unique_lock lock(mutex);
  ended.wait(lock, [&] { return left == 0; });
  return answers;
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
  const auto answers = answer(*engine, goldens);
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
  const auto answers = answer(*engine, goldens);
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

}  // namespace
}  // namespace lanner
