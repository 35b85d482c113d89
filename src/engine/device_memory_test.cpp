// The CUDA device's memory runs out, at start and in use, and a kernel faults. Runs on a device only (label gpu).

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "engine/engine_test_support.h"
#include "ops/forwarding_backend.h"
#include "ops/refuse_memory.h"

namespace lanner {
namespace {

using namespace testing_support;

/// Memory is refused from a point on, for as long as this lives.
class Refusal {
 public:
  explicit Refusal(std::int64_t after) { ops::refuse_cuda_memory(after); }
  ~Refusal() { ops::refuse_cuda_memory(std::nullopt); }
  Refusal(const Refusal&) = delete;
  Refusal& operator=(const Refusal&) = delete;
};

void expect_answered(const std::vector<Collector::Record>& records) {
  for (const Collector::Record& record : records) {
    ASSERT_EQ(record.finals.size(), 1U);
    EXPECT_TRUE(record.finals[0].status.ok()) << record.finals[0].status.message();
    EXPECT_TRUE(record.tokens.contains(0));
  }
}

TEST(DeviceMemory, AtStartItsLackIsAnErrorWhereverItShows) {
  int refused = 0;
  for (std::int64_t after = 0;; ++after) {
    const Refusal refusal(after);
    const auto opened = open_engine(make_random_checkpoint({}), small_options(), nullptr);
    if (opened.ok()) break;
    EXPECT_EQ(opened.status().code(), StatusCode::kResourceExhausted) << opened.status().message();
    ++refused;
    ASSERT_LT(refused, 500);
  }
  EXPECT_GT(refused, 30);  // weights alone are more
}

TEST(DeviceMemory, StepsTakeNoneAndDoWithoutGraphs) {
  std::vector<std::string> notes;
  EngineOptions options = small_options();
  options.on_note = [&](std::string_view note) { notes.emplace_back(note); };
  const auto expected = run(*open(small_options()), mixed_requests(32, 1));
  {
    auto engine = open(options);
    const Refusal refusal(0);
    const auto records = run(*engine, mixed_requests(32, 1));
    expect_answered(records);
    if (test_device() == TestDevice::kCudaDeterministic) {
      EXPECT_EQ(tokens_of(records), tokens_of(expected));
    }
    // What is refused is the graphs alone: not one step fails.
    EXPECT_EQ(engine->stats().failed_steps, 0);
    expect_no_leak(*engine);
  }
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].find("CUDA graph"), std::string::npos) << notes[0];
}

TEST(DeviceMemory, AnotherMayTakeAllOfItBesideTheEngine) {
  const auto expected = run(*open(small_options()), mixed_requests(32, 1));
  EngineOptions options = small_options();
  options.max_batch_size = 64;
  auto engine = open(options);
  const auto taker = ops::make_cuda_backend({});
  ASSERT_TRUE(taker.ok()) << taker.status().message();
  std::int64_t taken = 0;
  for (std::int64_t bytes = std::int64_t{1} << 30; bytes >= 1 << 12;) {
    if ((*taker)->allocate(bytes, "all that there is").ok()) {
      taken += bytes;
    } else {
      bytes /= 2;
    }
  }
  EXPECT_GT(taken, std::int64_t{1} << 30);
  for (int round = 0; round < 3; ++round) {
    const auto records = run(*engine, mixed_requests(32, 1));
    expect_answered(records);
    if (test_device() == TestDevice::kCudaDeterministic) {
      EXPECT_EQ(tokens_of(records), tokens_of(expected));
    }
  }
  expect_no_leak(*engine);
  // Nothing is left for a second engine, which says so.
  const auto second = open_engine(make_random_checkpoint({}), small_options(), nullptr);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kResourceExhausted) << second.status().message();
}

/// After some steps it hands on blocks that are not there, so that a kernel reads where nothing is.
class FaultingBackend final : public ops::ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  bool begin_step(const ops::StepPlan& plan) override {
    if (++steps_ < kGoodSteps) return inner().begin_step(plan);
    ops::StepPlan wrong = plan;
    blocks_.assign(plan.batch.slices.begin(), plan.batch.slices.end());
    static constexpr std::int32_t kNowhere[4096] = {1 << 30, 1 << 30};
    for (ops::SequenceSlice& slice : blocks_) slice.blocks = std::span(kNowhere, slice.blocks.size());
    wrong.batch.slices = blocks_;
    return inner().begin_step(wrong);
  }

 private:
  static constexpr int kGoodSteps = 20;
  int steps_ = 0;
  std::vector<ops::SequenceSlice> blocks_;
};

/// Ends the process: with 0 where every request got its error and the engine went on to say so.
[[noreturn]] void serve_with_a_fault() {
  std::vector<std::string> notes;
  EngineOptions options = small_options();
  options.on_note = [&](std::string_view note) { notes.emplace_back(note); };
  auto engine = open(options, {}, [](std::unique_ptr<ops::Backend> backend) -> std::unique_ptr<ops::Backend> {
    return std::make_unique<FaultingBackend>(std::move(backend));
  });
  bool good = true;
  for (int round = 0; round < 3; ++round) {
    std::vector<Request> requests = mixed_requests(16, 2, true);
    for (Request& request : requests) request.stop_ids.clear();  // so that all of them are there when it comes
    for (const Collector::Record& record : run(*engine, std::move(requests))) {
      good = good && record.finals.size() == 1 && record.finals[0].status.code() == StatusCode::kInternal &&
             record.finals[0].status.message().find("CUDA device has failed") != std::string::npos;
      if (!good) std::fprintf(stderr, "not expected: %s\n", record.finals.at(0).status.message().c_str());
    }
  }
  expect_no_leak(*engine);
  engine.reset();
  for (const std::string& note : notes) std::fprintf(stderr, "note: %s\n", note.c_str());
  std::exit(good && notes.size() == 1 && !testing::Test::HasFailure() ? 0 : 1);
}

TEST(DeviceMemoryDeathTest, AFaultOfAKernelEndsRequestsAndNotTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a process of its own, whose device may be lost
  EXPECT_EXIT(serve_with_a_fault(), testing::ExitedWithCode(0), "note: .*CUDA device has failed");
}

}  // namespace
}  // namespace lanner
