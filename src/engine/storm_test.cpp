// Cancels without end: who survives says what it says alone, and nothing is left behind.

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>

#include "engine/engine_test_support.h"

namespace lanner {
namespace {

using namespace testing_support;

constexpr std::size_t kVictims = 2000;
constexpr std::size_t kSurvivors = 160;
constexpr std::int32_t kBatch = 128;

EngineOptions storm_options() {
  EngineOptions options = small_options();
  options.max_batch_size = kBatch;
  options.max_prefill_token_num = 256;
  options.kv_blocks = 512;
  return options;
}

Request survivor(std::mt19937& random) {
  Request request;
  request.prompt = random_prompt(random, 1 + random() % 90);
  request.max_new_tokens = static_cast<std::int32_t>(20 + random() % 60);
  if (random() % 3 == 0) request.sampling = {.temperature = 0.8F, .top_k = 30, .top_p = 0.9F, .seed = random()};
  return request;
}

std::vector<Request> survivors() {
  std::mt19937 random(31);
  std::vector<Request> requests;
  for (std::size_t i = 0; i < kSurvivors; ++i) requests.push_back(survivor(random));
  return requests;
}

/// What each says with nobody beside it.
std::vector<std::vector<std::int32_t>> alone() {
  EngineOptions options = storm_options();
  options.max_batch_size = 1;
  options.enable_prefix_caching = false;
  auto engine = open(options);
  return tokens_of(run(*engine, survivors()));
}

/// Requests that would go on for long, each of which is cancelled once: some while they wait or at once, by the thread
/// that submits, the others by the engine's own thread, after some tokens.
class Storm {
 public:
  explicit Storm(Engine& engine) : engine_(engine), random_(32) {}

  void add_victim() {
    Request request;
    request.prompt = random_prompt(random_, 1 + random_() % 120);
    request.max_new_tokens = 300;
    request.n = random_() % 9 == 0 ? 3 : 1;
    const bool early = random_() % 4 == 0;
    const auto tokens = early ? 0 : static_cast<int>(1 + random_() % 24);
    request.on_event = [this, tokens, seen = 0, forward = victims_.listener()](const Event& event) mutable {
      if (event.kind == Event::Kind::kToken && ++seen == tokens) engine_.cancel(event.request);
      forward(event);
    };
    submit(std::move(request), victim_ids_);
    if (early) early_.push_back(victim_ids_.back());
    if (early_.size() >= 40) cancel_early();
  }
  void add_survivor(Request request) {
    request.on_event = survivors_.listener();
    submit(std::move(request), survivor_ids_);
  }
  void end() {
    cancel_early();
    victims_.wait_for(kVictims);
    survivors_.wait_for(kSurvivors);
  }

  std::vector<Collector::Record> survivor_records() { return records(survivors_, survivor_ids_); }
  std::vector<Collector::Record> victim_records() { return records(victims_, victim_ids_); }

 private:
  void submit(Request request, std::vector<RequestId>& ids) {
    const auto id = engine_.submit(std::move(request));
    ASSERT_TRUE(id.ok()) << id.status().message();
    ids.push_back(*id);
  }
  void cancel_early() {
    for (const RequestId id : early_) engine_.cancel(id);
    early_.clear();
  }
  static std::vector<Collector::Record> records(Collector& collector, const std::vector<RequestId>& ids) {
    std::vector<Collector::Record> result;
    for (const RequestId id : ids) result.push_back(collector.record(id));
    return result;
  }

  Engine& engine_;
  std::mt19937 random_;
  Collector victims_;
  Collector survivors_;
  std::vector<RequestId> victim_ids_;
  std::vector<RequestId> survivor_ids_;
  std::vector<RequestId> early_;  // to be cancelled soon
};

TEST(CancelStorm, SurvivorsSayWhatTheySayAloneAndNothingLeaks) {
  const auto expected = alone();
  std::vector<Request> requests = survivors();
  auto engine = open(storm_options());
  Storm storm(*engine);
  std::size_t next = 0;
  for (std::size_t i = 0; i < kVictims; ++i) {
    storm.add_victim();
    if (i * kSurvivors / kVictims >= next && next < kSurvivors) storm.add_survivor(std::move(requests[next++]));
  }
  ASSERT_EQ(next, kSurvivors);
  storm.end();

  for (const Collector::Record& record : storm.victim_records()) {
    ASSERT_EQ(record.finals.size(), 1U);
    EXPECT_FALSE(record.after_final);
    for (const FinishReason reason : record.finals[0].reasons) EXPECT_EQ(reason, FinishReason::kAbort);
  }
  const auto said = tokens_of(storm.survivor_records());
  for (std::size_t i = 0; i < kSurvivors; ++i) {
    EXPECT_EQ(said[i].size(), expected[i].size());
    // The fast mode of CUDA does not promise it.
    if (test_device() != TestDevice::kCuda) {
      EXPECT_EQ(said[i], expected[i]) << "survivor " << i;
    }
  }
  expect_no_leak(*engine);
}

}  // namespace
}  // namespace lanner
