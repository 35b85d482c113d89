// A device that lacks memory, or fails: what the engine makes of it. The device is one that works, behind a backend
// that refuses what a test wants refused.

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <string>

#include "engine/engine_test_support.h"
#include "ops/forwarding_backend.h"

namespace lanner {
namespace {

using namespace testing_support;

/// What the backend of a test refuses; set by the test, read by the engine's thread.
struct Refusals {
  std::atomic<std::int64_t> most_rows = 1 << 20;                 // of a step; one of more lacks memory
  std::atomic<int> steps_without_memory = 0;                     // to come
  std::atomic<int> steps_that_fail = 0;                          // to come, otherwise
  std::atomic<int> collects_that_fail = 0;                       // to come
  std::atomic<std::int64_t> most_bytes = std::int64_t{1} << 40;  // of one allocation
};

bool count_down(std::atomic<int>& count) {
  if (count <= 0) return false;
  --count;
  return true;
}

class RefusingBackend final : public ops::ForwardingBackend {
 public:
  RefusingBackend(std::unique_ptr<ops::Backend> inner, Refusals& refusals)
      : ForwardingBackend(std::move(inner)), refusals_(refusals) {}

  Result<std::byte*> allocate(std::int64_t bytes, const char* what) override {
    if (bytes > refusals_.most_bytes) return resource_exhausted(std::string(what) + ": no memory");
    return inner().allocate(bytes, what);
  }
  bool begin_step(const ops::StepPlan& plan) override {
    if (plan.batch.rows > refusals_.most_rows || count_down(refusals_.steps_without_memory)) {
      failure_ = resource_exhausted("a step: out of memory");
    } else if (count_down(refusals_.steps_that_fail)) {
      failure_ = internal_error("a step: an illegal memory access");
    }
    return inner().begin_step(plan);
  }
  void collect(std::span<ops::SampledToken> tokens) override {
    inner().collect(tokens);
    if (count_down(refusals_.collects_that_fail)) failure_ = internal_error("a step: an illegal memory access");
  }
  Status take_failure() override {
    if (!failure_.ok()) return std::exchange(failure_, {});
    return inner().take_failure();
  }

 private:
  Refusals& refusals_;
  Status failure_;
};

class DeviceFailure : public testing::Test {
 protected:
  std::unique_ptr<Engine> open_refusing(EngineOptions options) {
    options.on_note = [this](std::string_view text) {
      const std::lock_guard lock(mutex_);
      notes_.emplace_back(text);
    };
    return open(options, {}, [this](std::unique_ptr<ops::Backend> backend) -> std::unique_ptr<ops::Backend> {
      return std::make_unique<RefusingBackend>(std::move(backend), refusals_);
    });
  }
  std::size_t notes_with(std::string_view words) {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(
        std::ranges::count_if(notes_, [&](const std::string& note) { return note.find(words) != std::string::npos; }));
  }

  Refusals refusals_;

 private:
  std::mutex mutex_;
  std::vector<std::string> notes_;
};

/// Of requests that had nothing to do with a failure. The fast mode of CUDA promises no tokens for another schedule.
void expect_answers(const std::vector<Collector::Record>& records, const std::vector<Collector::Record>& expected) {
  ASSERT_EQ(records.size(), expected.size());
  const auto tokens = tokens_of(records);
  const auto wanted = tokens_of(expected);
  for (std::size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(records[i].finals.at(0).status.code(), StatusCode::kOk) << records[i].finals.at(0).status.message();
    if (test_device() != TestDevice::kCuda) {
      EXPECT_EQ(tokens[i], wanted[i]) << "request " << i;
    }
  }
}

/// With everything that a step hands out: logits, hidden states, log-probabilities.
std::vector<Request> requests_with_wants() {
  std::vector<Request> requests = mixed_requests(24, 5);
  requests[1].wants.logits = RequestWants::Logits::kAll;
  requests[2].wants.hidden = RequestWants::Hidden::kMean;
  requests[7].wants.hidden = RequestWants::Hidden::kLast;
  return requests;
}

TEST_F(DeviceFailure, AStepThatFoundNoMemoryIsDoneAgain) {
  const auto expected = run(*open(small_options()), requests_with_wants());
  auto engine = open_refusing(small_options());
  for (int round = 0; round < 3; ++round) {
    refusals_.steps_without_memory = 1;
    const auto records = run(*engine, requests_with_wants());
    expect_answers(records, expected);
    if (test_device() != TestDevice::kCuda) {
      for (const std::size_t i : {1U, 2U, 7U}) {
        EXPECT_EQ(records[i].logits, expected[i].logits);
        EXPECT_EQ(records[i].hidden, expected[i].hidden);
      }
    }
    EXPECT_EQ(refusals_.steps_without_memory, 0);
  }
  EXPECT_EQ(engine->stats().failed_steps, 3);
  EXPECT_EQ(engine->stats().preemptions, 0);
  expect_no_leak(*engine);
}

TEST_F(DeviceFailure, WhereMemoryStaysShortFewerRunAndAllAreAnswered) {
  EngineOptions options = small_options();
  options.max_batch_size = 32;
  const auto expected = run(*open(options), requests_with_wants());
  refusals_.most_rows = 20;
  auto engine = open_refusing(options);
  expect_answers(run(*engine, requests_with_wants()), expected);
  EXPECT_GT(engine->stats().failed_steps, 1);
  EXPECT_GT(engine->stats().preemptions, 0);
  EXPECT_GT(notes_with("wait until others have ended"), 0U);
  expect_no_leak(*engine);

  refusals_.most_rows = 1 << 20;
  const std::int64_t before = engine->stats().failed_steps;
  expect_answers(run(*engine, requests_with_wants()), expected);
  EXPECT_EQ(engine->stats().failed_steps, before);
}

TEST_F(DeviceFailure, WhoeverFindsNoMemoryEvenAloneEndsWithAnError) {
  auto engine = open_refusing(small_options());
  refusals_.most_rows = 0;
  const auto records =
      run(*engine, {{.prompt = {1, 2, 3}, .max_new_tokens = 4, .n = 3}, {.prompt = {4}, .max_new_tokens = 4}});
  for (const Collector::Record& record : records) {
    ASSERT_EQ(record.finals.size(), 1U);
    for (const FinishReason reason : record.finals[0].reasons) EXPECT_EQ(reason, FinishReason::kError);
    EXPECT_EQ(record.finals[0].status.code(), StatusCode::kResourceExhausted);
  }
  expect_no_leak(*engine);
  refusals_.most_rows = 1 << 20;
  EXPECT_EQ(run(*engine, {{.prompt = {1, 2, 3}, .max_new_tokens = 4}})[0].tokens.at(0).size(), 4U);
}

TEST_F(DeviceFailure, EndsEachRequestOnceAndServesTheNext) {
  const auto expected = run(*open(small_options()), mixed_requests(24, 6));
  auto engine = open_refusing(small_options());
  for (std::atomic<int>* failing : {&refusals_.steps_that_fail, &refusals_.collects_that_fail}) {
    // A device that answers at once has nothing to collect.
    if (failing == &refusals_.collects_that_fail && test_device() == TestDevice::kCpu) continue;
    Collector collector;
    std::vector<RequestId> ids;
    const std::int64_t before = engine->stats().generated_tokens;
    for (Request& request : mixed_requests(24, 6)) {
      request.on_event = collector.listener();
      request.max_new_tokens = 500;
      request.stop_ids.clear();
      request.sampling.logprobs = -1;  // whose tokens a device that answers late has at once
      ids.push_back(*engine->submit(std::move(request)));
    }
    while (engine->stats().generated_tokens == before) std::this_thread::yield();
    *failing = 1;
    collector.wait_for(ids.size());
    for (const RequestId id : ids) {
      const Collector::Record record = collector.record(id);
      ASSERT_EQ(record.finals.size(), 1U);
      EXPECT_EQ(record.finals[0].reasons[0], FinishReason::kError);
      EXPECT_NE(record.finals[0].status.message().find("illegal memory access"), std::string::npos);
      EXPECT_FALSE(record.after_final);
    }
    expect_no_leak(*engine);
    EXPECT_EQ(*failing, 0);
    expect_answers(run(*engine, mixed_requests(24, 6)), expected);
  }
  EXPECT_GT(notes_with("end with an error"), 0U);
}

TEST_F(DeviceFailure, TheCacheIsSmallerWhereItsMemoryIsTaken) {
  EngineOptions options = small_options();
  options.kv_blocks = 0;
  options.max_batch_size = 64;
  options.cache_max_entry_count = 0.2;
  const MemoryPlan planned = open(options)->memory_plan();
  ASSERT_GE(planned.kv_blocks, 256);  // what it could ever use
  refusals_.most_bytes = planned.kv_bytes / 3;
  auto engine = open_refusing(options);
  ASSERT_NE(engine, nullptr);
  const MemoryPlan plan = engine->memory_plan();
  EXPECT_LE(plan.kv_bytes, planned.kv_bytes / 3);
  EXPECT_GT(plan.kv_bytes, planned.kv_bytes / 4);
  EXPECT_EQ(plan.kv_tokens, plan.kv_blocks * 64);
  EXPECT_EQ(run(*engine, {{.prompt = {1, 2, 3}, .max_new_tokens = 4}})[0].tokens.at(0).size(), 4U);
}

TEST_F(DeviceFailure, WithoutMemoryForTheLeastCacheThereIsAnErrorOfOneLine) {
  EngineOptions options = small_options();
  options.kv_blocks = 0;
  refusals_.most_bytes = 1 << 16;
  const auto opened = open_engine(make_random_checkpoint({}), options, nullptr,
                                  [this](std::unique_ptr<ops::Backend> backend) -> std::unique_ptr<ops::Backend> {
                                    return std::make_unique<RefusingBackend>(std::move(backend), refusals_);
                                  });
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(opened.status().message().find("no memory; a smaller --max-prefill-token-num"), std::string::npos);
  EXPECT_EQ(opened.status().message().find('\n'), std::string::npos);
}

}  // namespace
}  // namespace lanner
