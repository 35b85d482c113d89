#include "eval/throughput_benchmark.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>

#include "engine/scripted_engine.h"

namespace lanner::eval {
namespace {

using std::chrono::milliseconds;

ScriptedEngine endless_engine() {
  return ScriptedEngine([](const Request&) {
    return Script{.tokens = {{5}}, .delay = milliseconds(2), .first_delay = milliseconds(20), .endless = true};
  });
}

TEST(Throughput, CountsEveryTokenAndTimesFollowFromTheScript) {
  ScriptedEngine engine = endless_engine();
  std::int64_t ended = 0;
  const auto result = measure_throughput(
      engine, {.requests = {{10, 11}, {3, 1}, {7, 21}}, .progress = [&](std::int64_t done, std::int64_t total) {
                 EXPECT_EQ(total, 3);
                 ended = done;
               }});
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->requests, 3);
  EXPECT_EQ(result->prompt_tokens, 20);
  EXPECT_EQ(result->output_tokens, 33);
  EXPECT_EQ(ended, 3);
  // Sleeping takes at least what was asked for.
  EXPECT_GE(result->ttft_s.p50, 0.022);
  EXPECT_GE(result->tpot_s.p50, 0.002);
  EXPECT_GE(result->seconds, 0.022 + 20 * 0.002);
  EXPECT_LE(result->ttft_s.p99, result->seconds);
  EXPECT_DOUBLE_EQ(result->requests_per_s(), 3 / result->seconds);
  EXPECT_DOUBLE_EQ(result->total_tokens_per_s(), 53 / result->seconds);
}

TEST(Throughput, PromptsAreThoseOfTheSeedAndAnswersAreGreedy) {
  const auto prompts = [](std::uint64_t seed) {
    ScriptedEngine engine([](const Request&) { return Script{.tokens = {{5}}, .endless = true}; });
    EXPECT_TRUE(measure_throughput(engine, {.requests = {{16, 2}, {16, 2}}, .seed = seed}).ok());
    std::vector<std::vector<std::int32_t>> seen;
    for (const Request& request : engine.requests()) {
      EXPECT_EQ(request.sampling.temperature, 0.0F);
      EXPECT_TRUE(request.stop_ids.empty());
      seen.push_back(request.prompt);
    }
    return seen;
  };
  const auto first = prompts(1);
  ASSERT_EQ(first.size(), 4U);  // two to warm up
  EXPECT_NE(first[2], first[3]);
  EXPECT_EQ(prompts(1), first);
  EXPECT_NE(prompts(3)[2], first[2]);
}

TEST(Throughput, RunsTheListAsOftenAsWantedWithOtherPromptsEachTime) {
  ScriptedEngine engine([](const Request&) { return Script{.tokens = {{5}}, .endless = true}; });
  std::vector<std::int64_t> ended;
  const auto result = measure_throughput(
      engine,
      {.requests = {{16, 2}, {16, 3}}, .repetitions = 3, .progress = [&](std::int64_t done, std::int64_t total) {
         EXPECT_EQ(total, 6);
         ended.push_back(done);
       }});
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->output_tokens, 5);
  EXPECT_EQ(ended, (std::vector<std::int64_t>{1, 2, 3, 4, 5, 6}));
  std::set<std::vector<std::int32_t>> prompts;
  for (const Request& request : engine.requests()) prompts.insert(request.prompt);
  EXPECT_EQ(prompts.size(), 8U);  // two of them to warm up
}

TEST(Throughput, RefusesNothingAndWhatDoesNotFit) {
  ScriptedEngine engine = endless_engine();
  EXPECT_EQ(measure_throughput(engine, {}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(measure_throughput(engine, {.requests = {{2, 4}}, .repetitions = 0}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(measure_throughput(engine, {.requests = {{2000, 49}}}).status().code(), StatusCode::kInvalidArgument);
}

TEST(Percentiles, AreValuesOfTheList) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Percentiles result = percentiles_of(values);
  EXPECT_EQ(result.p50, 50);
  EXPECT_EQ(result.p90, 90);
  EXPECT_EQ(result.p99, 99);
  EXPECT_EQ(percentiles_of({7}).p99, 7);
  EXPECT_EQ(percentiles_of({}).p50, 0);
}

TEST(RequestLengths, AreReadAndChecked) {
  const std::string path = testing::TempDir() + "request_lengths.json";
  const auto read = [&](const char* text) {
    std::ofstream(path) << text;
    return read_request_lengths(path);
  };
  const auto good = read("[[772, 260], [1, 33554432]]");
  ASSERT_TRUE(good.ok()) << good.status().message();
  ASSERT_EQ(good->size(), 2U);
  EXPECT_EQ((*good)[0].prompt_tokens, 772);
  EXPECT_EQ((*good)[1].output_tokens, 33554432);
  for (const char* bad : {"{}", "[1, 2]", "[[1]]", "[[1, 2, 3]]", "[[0, 1]]", "[[1, -5]]", "[[1, 1.5]]",
                          "[[1, 33554433]]", "[[1, 1e300]]", "[[1, \"2\"]]", "[["}) {
    const auto result = read(bad);
    EXPECT_EQ(result.status().code(), StatusCode::kCorrupt) << bad;
  }
  std::filesystem::remove(path);
  EXPECT_EQ(read_request_lengths(path).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace lanner::eval
