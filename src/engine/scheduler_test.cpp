#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace lanner {
namespace {

constexpr std::int64_t kSlots = 64;

class Scheduling {
 public:
  /// Adds `count` requests of a short prompt.
  void arrive(int count) {
    for (int i = 0; i < count; ++i) {
      auto state = std::make_shared<RequestState>();
      state->id = ++last_id_;
      state->request.prompt = {1, 2, 3};
      auto sequence = std::make_unique<Sequence>();
      sequence->tokens = state->request.prompt;
      sequence->most_tokens = 1000;
      sequence->request = std::move(state);
      scheduler_.add(std::move(sequence));
    }
  }
  /// One step in which every prompt is computed; returns how many of its sequences are new.
  std::int64_t step() {
    const Scheduler::Step step = scheduler_.plan();
    std::int64_t admitted = 0;
    for (const Scheduler::Item& item : step.items) {
      admitted += item.sequence->state == SequenceState::kPrefill ? 1 : 0;
      item.sequence->state = SequenceState::kDecode;
      item.sequence->computed = item.sequence->size();
      item.sequence->tokens.push_back(1);
    }
    return admitted;
  }
  /// The `count` oldest that run are done.
  void end(int count) {
    const std::vector<Sequence*> all = scheduler_.all();
    for (int i = 0; i < count; ++i) scheduler_.remove(*all[static_cast<std::size_t>(i)]);
  }
  std::int64_t waiting() const { return scheduler_.waiting(); }

 private:
  KvBlocks blocks_{1000, false};
  Scheduler scheduler_{{.max_sequences = kSlots, .max_rows = 4096, .max_output_rows = 4096, .given_at_once = 2},
                       blocks_};
  RequestId last_id_ = 0;
};

TEST(Scheduler, AdmitsAtOnceWhileSlotsAreNotShort) {
  Scheduling scheduling;
  for (int i = 0; i < kSlots; ++i) {
    scheduling.arrive(1);
    EXPECT_EQ(scheduling.step(), 1);
  }
  scheduling.end(1);
  EXPECT_EQ(scheduling.step(), 0);
  scheduling.arrive(1);  // for the one slot that is free
  EXPECT_EQ(scheduling.step(), 1);
}

TEST(Scheduler, GivesOutShortSlotsSeveralAtATime) {
  Scheduling scheduling;
  scheduling.arrive(100);
  EXPECT_EQ(scheduling.step(), kSlots);
  scheduling.end(1);
  EXPECT_EQ(scheduling.step(), 0);
  scheduling.end(1);  // two of 64 are the share
  EXPECT_EQ(scheduling.step(), 2);
  EXPECT_EQ(scheduling.step(), 0);
}

TEST(Scheduler, HoldsASlotForSomeStepsOnly) {
  Scheduling scheduling;
  scheduling.arrive(100);
  EXPECT_EQ(scheduling.step(), kSlots);
  for (int round = 0; round < 2; ++round) {
    scheduling.end(1);
    int held = 0;
    while (scheduling.step() == 0 && held < 1000) ++held;
    EXPECT_EQ(held, 16);
  }
}

TEST(Scheduler, HoldsNoSlotBackOnceFewerWaitThanAreFree) {
  Scheduling scheduling;
  scheduling.arrive(static_cast<int>(kSlots) + 1);
  EXPECT_EQ(scheduling.step(), kSlots);
  scheduling.end(1);
  EXPECT_EQ(scheduling.step(), 1);
  EXPECT_EQ(scheduling.waiting(), 0);
}

}  // namespace
}  // namespace lanner
