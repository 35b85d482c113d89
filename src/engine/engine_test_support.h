#pragma once
// For tests of the engine: a small one over random weights, requests, and what came of them.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "engine/open_engine.h"
#include "engine/random_checkpoint.h"
#include "engine/test_engine_options.h"
#include "lanner/engine.h"

namespace lanner::testing_support {

std::vector<std::int32_t> random_prompt(std::mt19937& random, std::size_t length);

/// On the device of the test (ops/test_device.h); `wrap` is put around it.
std::unique_ptr<Engine> open(const EngineOptions& options, const RandomModel& shape = {},
                             const WrapBackend& wrap = nullptr);

EngineOptions small_options();

/// What came of the requests of one test, by id.
class Collector {
 public:
  struct Record {
    std::map<std::int32_t, std::vector<std::int32_t>> tokens;  // by choice
    std::map<std::int32_t, float> logits;                      // by position: a checksum of the row
    std::vector<float> hidden;
    std::vector<Event> finals;
    bool after_final = false;
  };

  std::function<void(const Event&)> listener() {
    return [this](const Event& event) { take(event); };
  }
  /// Until so many have ended; a failure of the test where they do not.
  void wait_for(std::size_t requests);
  Record record(RequestId id);

 private:
  void take(const Event& event);
  static void take_logits(const Event& event, Record& record);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Record> records_;
  std::size_t ended_ = 0;
};

/// Submits the requests together and returns each one's record.
std::vector<Collector::Record> run(Engine& engine, std::vector<Request> requests);

/// Mixed lengths and samplings; the same list for the same seed. Short prompts with long answers are what preemption
/// is made for.
std::vector<Request> mixed_requests(std::size_t count, unsigned seed, bool answers_grow = false);

/// Of the first choice of each; every request has ended once.
std::vector<std::vector<std::int32_t>> tokens_of(const std::vector<Collector::Record>& records);

/// Nothing runs any more, and no block is in use.
void expect_no_leak(const Engine& engine);

}  // namespace lanner::testing_support
