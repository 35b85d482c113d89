#include "engine/engine_test_support.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "engine/late_backend.h"
#include "ops/backend.h"

namespace lanner::testing_support {

std::vector<std::int32_t> random_prompt(std::mt19937& random, std::size_t length) {
  std::vector<std::int32_t> prompt(length);
  for (std::int32_t& token : prompt) token = static_cast<std::int32_t>(random() % 96);
  return prompt;
}

std::unique_ptr<Engine> open(const EngineOptions& options, const RandomModel& shape, const WrapBackend& wrap) {
  const WrapBackend wrapped = [&](std::unique_ptr<ops::Backend> backend) {
    if (test_device() == TestDevice::kCpuLate) backend = answering_late(std::move(backend));
    return wrap ? wrap(std::move(backend)) : std::move(backend);
  };
  auto opened = open_engine(make_random_checkpoint(shape), options, nullptr, wrapped);
  EXPECT_TRUE(opened.ok()) << opened.status().message();
  return opened.ok() ? std::move(opened->engine) : nullptr;
}

EngineOptions small_options() {
  EngineOptions options = test_engine_options();
  options.session_len = 1024;
  options.max_batch_size = 16;
  options.max_prefill_token_num = 64;
  options.threads = 2;
  options.kv_blocks = 256;
  return options;
}

void Collector::wait_for(std::size_t requests) {
  std::unique_lock lock(mutex_);
  const bool in_time = changed_.wait_for(lock, std::chrono::seconds(240), [&] { return ended_ >= requests; });
  ASSERT_TRUE(in_time) << ended_ << " of " << requests << " requests ended";
}

Collector::Record Collector::record(RequestId id) {
  const std::lock_guard lock(mutex_);
  return records_[id];
}

void Collector::take(const Event& event) {
  const std::lock_guard lock(mutex_);
  Record& record = records_[event.request];
  if (!record.finals.empty()) record.after_final = true;
  switch (event.kind) {
    case Event::Kind::kToken: record.tokens[event.choice].push_back(event.token); break;
    case Event::Kind::kLogits: take_logits(event, record); break;
    case Event::Kind::kHidden: record.hidden.assign(event.values.begin(), event.values.end()); break;
    case Event::Kind::kFinal:
      record.finals.push_back(event);
      ++ended_;
      changed_.notify_all();
      break;
  }
}

void Collector::take_logits(const Event& event, Record& record) {
  const std::size_t vocab = event.values.size() / static_cast<std::size_t>(event.rows);
  for (std::int32_t row = 0; row < event.rows; ++row) {
    const auto values = event.values.subspan(static_cast<std::size_t>(row) * vocab, vocab);
    float sum = 0;
    for (std::size_t i = 0; i < vocab; ++i) sum += values[i] * static_cast<float>(i + 1);
    EXPECT_FALSE(record.logits.contains(event.first_position + row)) << "a row was delivered twice";
    record.logits[event.first_position + row] = sum;
  }
}

std::vector<Collector::Record> run(Engine& engine, std::vector<Request> requests) {
  Collector collector;
  std::vector<RequestId> ids;
  for (Request& request : requests) {
    request.on_event = collector.listener();
    auto id = engine.submit(std::move(request));
    EXPECT_TRUE(id.ok()) << id.status().message();
    if (id.ok()) ids.push_back(*id);
  }
  collector.wait_for(ids.size());
  std::vector<Collector::Record> records;
  for (const RequestId id : ids) records.push_back(collector.record(id));
  return records;
}

std::vector<Request> mixed_requests(std::size_t count, unsigned seed, bool answers_grow) {
  std::mt19937 random(seed);
  std::vector<Request> requests;
  const auto shared = random_prompt(random, 150);
  for (std::size_t i = 0; i < count; ++i) {
    Request request;
    if (i % 3 == 0 && !answers_grow) request.prompt.assign(shared.begin(), shared.begin() + 70 + random() % 80);
    const auto own = random_prompt(random, 1 + random() % (answers_grow ? 50 : 300));
    request.prompt.insert(request.prompt.end(), own.begin(), own.end());
    request.max_new_tokens = static_cast<std::int32_t>(1 + random() % 40) + (answers_grow ? 120 : 0);
    if (i % 2 == 1) {
      request.sampling = {.temperature = 0.9F, .top_k = 20, .top_p = 0.95F, .seed = i};
    }
    if (i % 5 == 2) request.sampling.repetition_penalty = 1.2F;
    if (i % 5 == 3) request.sampling.frequency_penalty = 0.3F;
    if (i % 6 == 1) request.stop_ids = {own[0], static_cast<std::int32_t>(random() % 96)};
    if (i % 7 == 3) request.bad_words = {{own[0]}, random_prompt(random, 2), random_prompt(random, 2)};
    if (i % 11 == 4) request.sampling.logprobs = 2;
    if (i % 13 == 6) request.wants.logits = RequestWants::Logits::kGenerated;
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<std::vector<std::int32_t>> tokens_of(const std::vector<Collector::Record>& records) {
  std::vector<std::vector<std::int32_t>> tokens;
  for (const Collector::Record& record : records) {
    EXPECT_EQ(record.finals.size(), 1U);
    EXPECT_FALSE(record.after_final);
    tokens.push_back(record.tokens.contains(0) ? record.tokens.at(0) : std::vector<std::int32_t>{});
  }
  return tokens;
}

void expect_no_leak(const Engine& engine) {
  // The counters follow the last final event by an instant.
  EngineStats stats = engine.stats();
  for (int i = 0; i < 5000 && stats.running + stats.waiting > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    stats = engine.stats();
  }
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.kv_blocks_used, 0);
}

}  // namespace lanner::testing_support
