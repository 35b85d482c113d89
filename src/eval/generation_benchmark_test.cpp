#include "eval/generation_benchmark.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <vector>

#include "engine/scripted_engine.h"

namespace lanner::eval {
namespace {

using std::chrono::milliseconds;

TEST(Spread, OfOddAndEvenNumbers) {
  const Spread odd = spread_of({3, 1, 2});
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.max, 3);
  EXPECT_EQ(spread_of({4, 1, 2, 3}).median, 2.5);
  EXPECT_EQ(spread_of({7}).median, 7);
}

TEST(GenerationBenchmark, SpeedsFollowFromTheScriptsTimes) {
  // 20 ms to the first token, 4 ms to each later one, whatever the batch.
  ScriptedEngine engine([](const Request&) {
    return Script{.tokens = {{5}}, .delay = milliseconds(4), .first_delay = milliseconds(16), .endless = true};
  });
  const auto speeds =
      measure_generation(engine, {.batch_sizes = {1, 4}, .prompt_tokens = {10}, .output_tokens = 11, .repetitions = 2});
  ASSERT_TRUE(speeds.ok()) << speeds.status().message();
  ASSERT_EQ(speeds->prefill.size(), 1U);
  ASSERT_EQ(speeds->decode.size(), 2U);
  // Sleeping takes at least what was asked; a loaded machine takes longer.
  EXPECT_LE(speeds->prefill[0].tokens_per_s.max, 10 / 0.020 * 1.01);
  EXPECT_GT(speeds->prefill[0].tokens_per_s.max, 10 / 0.020 / 10);
  EXPECT_EQ(speeds->decode[1].batch_size, 4);
  EXPECT_GT(speeds->decode[1].tokens_per_s.max, 4 / 0.004 / 10);
  EXPECT_GT(speeds->decode[1].tokens_per_s.max, speeds->decode[0].tokens_per_s.min);
  EXPECT_LE(speeds->decode[0].tokens_per_s.min, speeds->decode[0].tokens_per_s.median);
}

TEST(GenerationBenchmark, PromptsDifferAndRepeatWithTheSeed) {
  const auto prompts = [](std::uint64_t seed) {
    ScriptedEngine engine([](const Request& request) {
      return Script{
          .tokens = {{5}}, .delay = std::chrono::microseconds(5000 * request.max_new_tokens), .endless = true};
    });
    const auto speeds = measure_generation(
        engine, {.batch_sizes = {3}, .prompt_tokens = {16}, .output_tokens = 4, .repetitions = 1, .seed = seed});
    EXPECT_TRUE(speeds.ok()) << speeds.status().message();
    std::vector<std::vector<std::int32_t>> seen;
    for (const Request& request : engine.requests()) {
      EXPECT_TRUE(request.stop_ids.empty());
      EXPECT_EQ(request.sampling.temperature, 0.0F);
      seen.push_back(request.prompt);
    }
    return seen;
  };
  const auto first = prompts(1);
  EXPECT_EQ(first.size(), 2U + 2U * 2U * 3U);  // prefill; (1, output) x (warm-up, 1 repetition) x 3
  EXPECT_EQ(std::set(first.begin(), first.end()).size(), first.size());
  EXPECT_EQ(first, prompts(1));
  EXPECT_NE(first, prompts(2));
}

TEST(GenerationBenchmark, RefusesWhatDoesNotFit) {
  ScriptedEngine engine([](const Request&) { return Script{.tokens = {{5}}, .endless = true}; }, {.session_len = 64});
  const auto code = [&](const GenerationBenchmarkOptions& options) {
    return measure_generation(engine, options).status().code();
  };
  EXPECT_EQ(code({.prompt_tokens = {60}, .output_tokens = 5}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.prompt_tokens = {8}, .output_tokens = 1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.batch_sizes = {0}, .prompt_tokens = {8}, .output_tokens = 8}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.batch_sizes = {}, .prompt_tokens = {8}, .output_tokens = 8}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.prompt_tokens = {8}, .output_tokens = 8, .repetitions = 0}), StatusCode::kInvalidArgument);
}

TEST(GenerationBenchmark, AFailureEndsIt) {
  ScriptedEngine engine([](const Request&) { return Script{.tokens = {{5}}, .endless = true, .fail_after = 2}; });
  EXPECT_EQ(measure_generation(engine, {.prompt_tokens = {8}, .output_tokens = 8}).status().message(),
            "the script says so");
}

TEST(GenerationBenchmark, ARefusalEndsIt) {
  ScriptedEngine engine(
      [](const Request&) { return Script{.tokens = {{5}}, .delay = milliseconds(1), .endless = true}; },
      {.max_queue = 2});
  EXPECT_EQ(measure_generation(engine, {.batch_sizes = {4}, .prompt_tokens = {8}, .output_tokens = 8}).status().code(),
            StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace lanner::eval
