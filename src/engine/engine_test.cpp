// The engine over a small random model: every promise of include/lanner/engine.h, with the real scheduler, decoder and
// kernels.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>

#include "engine/engine_test_support.h"
#include "engine/late_backend.h"
#include "ops/backend.h"

namespace lanner {
namespace {

using namespace testing_support;

// The promise behind --deterministic: the same tokens together and alone, in chunks of any size, with the prefix cache
// cold, warm or off, and under preemption.
class Determinism : public testing::TestWithParam<ops::WeightFormat> {};

TEST_P(Determinism, TokensDependOnTheRequestAlone) {
  const RandomModel shape{.format = GetParam()};
  EngineOptions options = small_options();
  options.max_batch_size = 1;
  options.enable_prefix_caching = false;
  options.threads = 1;
  auto alone = open(options, shape);
  const auto expected = tokens_of(run(*alone, mixed_requests(32, 1)));
  const auto grown = tokens_of(run(*alone, mixed_requests(16, 2, true)));

  auto together = open(small_options(), shape);
  EXPECT_EQ(tokens_of(run(*together, mixed_requests(32, 1))), expected) << "32 together, prefix cache cold";
  const auto warm = run(*together, mixed_requests(32, 1));
  EXPECT_EQ(tokens_of(warm), expected) << "prefix cache warm";
  EXPECT_GT(together->stats().cached_tokens, 1000);
  expect_no_leak(*together);

  for (const std::int32_t chunk : {16, 100, 512}) {
    options = small_options();
    options.max_prefill_token_num = chunk;
    options.threads = 3;
    EXPECT_EQ(tokens_of(run(*open(options, shape), mixed_requests(32, 1))), expected) << "chunks of " << chunk;
  }

  options = small_options();
  options.kv_blocks = 10;
  auto pressed = open(options, shape);
  EXPECT_EQ(tokens_of(run(*pressed, mixed_requests(32, 1))), expected) << "with little room";
  EXPECT_EQ(tokens_of(run(*pressed, mixed_requests(16, 2, true))), grown) << "with preemption";
  EXPECT_GT(pressed->stats().preemptions, 0);
  expect_no_leak(*pressed);
}

INSTANTIATE_TEST_SUITE_P(Formats, Determinism,
                         testing::Values(ops::WeightFormat::kF32, ops::WeightFormat::kInt4, ops::WeightFormat::kInt8),
                         [](const auto& format) { return std::string(ops::weight_format_name(format.param)); });

// The same promise where the cache holds codes, with their scales in the same blocks.
class CodesInTheCache : public testing::TestWithParam<QuantPolicy> {};

TEST_P(CodesInTheCache, PrefixesAreSharedAndTokensStayTheSame) {
  EngineOptions options = small_options();
  options.max_batch_size = 1;
  options.enable_prefix_caching = false;
  options.threads = 1;
  const auto in_16_bits = tokens_of(run(*open(options), mixed_requests(32, 1)));
  options.quant_policy = GetParam();
  const auto expected = tokens_of(run(*open(options), mixed_requests(32, 1)));
  EXPECT_NE(expected, in_16_bits) << "the cache has no codes";

  options = small_options();
  options.quant_policy = GetParam();
  auto together = open(options);
  EXPECT_EQ(tokens_of(run(*together, mixed_requests(32, 1))), expected) << "32 together, prefix cache cold";
  const std::int64_t before = together->stats().cached_tokens;
  EXPECT_EQ(tokens_of(run(*together, mixed_requests(32, 1))), expected) << "prefix cache warm";
  EXPECT_GT(together->stats().cached_tokens, before + 1000);
  expect_no_leak(*together);

  options.kv_blocks = 10;
  auto pressed = open(options);
  EXPECT_EQ(tokens_of(run(*pressed, mixed_requests(32, 1))), expected) << "with little room";
  expect_no_leak(*pressed);
}

TEST_P(CodesInTheCache, ChoicesReadOnePromptFromSharedBlocks) {
  EngineOptions options = small_options();
  options.quant_policy = GetParam();
  auto engine = open(options);
  std::mt19937 random(6);
  Request request;
  request.prompt = random_prompt(random, 200);
  request.max_new_tokens = 30;
  const auto alone = run(*engine, {request})[0].tokens.at(0);
  request.n = 4;
  const Collector::Record record = run(*engine, {request})[0];
  ASSERT_EQ(record.tokens.size(), 4U);
  for (const auto& [choice, tokens] : record.tokens) EXPECT_EQ(tokens, alone) << "greedy choice " << choice;
  EXPECT_GE(engine->stats().cached_tokens, 4 * 192) << "three whole blocks of each";
  expect_no_leak(*engine);
}

// In the fast mode, too, where tokens may depend on the company: nothing fails, nobody waits for ever.
TEST_P(CodesInTheCache, RequestsFinishWithRoomForFew) {
  EngineOptions options = small_options();
  options.quant_policy = GetParam();
  options.max_batch_size = 24;
  options.kv_blocks = 24;
  auto engine = open(options);
  std::mt19937 random(12);
  std::vector<Request> requests;
  for (int i = 0; i < 24; ++i) {
    Request request;
    request.prompt = random_prompt(random, i % 3 == 0 ? 5 : 150);
    request.max_new_tokens = 60;
    requests.push_back(std::move(request));
  }
  for (const Collector::Record& record : run(*engine, std::move(requests))) {
    ASSERT_EQ(record.finals.size(), 1U);
    EXPECT_EQ(record.finals[0].reasons[0], FinishReason::kLength);
    EXPECT_EQ(record.tokens.at(0).size(), 60U);
  }
  expect_no_leak(*engine);
}

INSTANTIATE_TEST_SUITE_P(Policies, CodesInTheCache, testing::Values(QuantPolicy::kInt8, QuantPolicy::kInt4),
                         [](const auto& policy) { return fmt::format("int{}", static_cast<int>(policy.param)); });

TEST(Engine, ManyRequestsFinishWithRoomForFew) {
  EngineOptions options = small_options();
  options.max_batch_size = 64;
  options.kv_blocks = 48;  // eight sequences of 384 tokens
  auto engine = open(options);
  std::vector<Request> requests;
  std::mt19937 random(3);
  for (int i = 0; i < 64; ++i) {
    Request request;
    request.prompt = random_prompt(random, 300);
    request.max_new_tokens = 80;
    requests.push_back(std::move(request));
  }
  for (const Collector::Record& record : run(*engine, std::move(requests))) {
    ASSERT_EQ(record.finals.size(), 1U);
    EXPECT_EQ(record.finals[0].reasons[0], FinishReason::kLength);
    EXPECT_EQ(record.tokens.at(0).size(), 80U);
  }
  expect_no_leak(*engine);
}

TEST(Engine, CancelsAtRandomLeakNothing) {
  EngineOptions options = small_options();
  options.kv_blocks = 64;
  auto engine = open(options);
  Collector collector;
  std::mt19937 random(11);
  constexpr std::size_t kRequests = 2000;
  std::vector<RequestId> ids;
  for (std::size_t i = 0; i < kRequests; ++i) {
    Request request;
    request.prompt = random_prompt(random, 1 + random() % 200);
    request.max_new_tokens = static_cast<std::int32_t>(random() % 30);
    request.n = i % 7 == 0 ? 3 : 1;
    request.on_event = collector.listener();
    const auto id = engine->submit(std::move(request));
    ASSERT_TRUE(id.ok());
    ids.push_back(*id);
    if (random() % 4 != 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
    engine->cancel(ids[ids.size() - 1 - random() % std::min<std::size_t>(ids.size(), 8)]);
  }
  for (const RequestId id : ids) engine->cancel(id);
  collector.wait_for(kRequests);
  std::size_t aborted = 0;
  for (const RequestId id : ids) {
    const Collector::Record record = collector.record(id);
    ASSERT_EQ(record.finals.size(), 1U);
    EXPECT_FALSE(record.after_final);
    aborted += record.finals[0].reasons[0] == FinishReason::kAbort ? 1 : 0;
  }
  EXPECT_GT(aborted, kRequests / 10);
  expect_no_leak(*engine);
}

TEST(Engine, ShuttingDownEndsEveryRequestOnce) {
  Collector collector;
  std::vector<RequestId> ids;
  {
    auto engine = open(small_options());
    std::mt19937 random(5);
    for (int i = 0; i < 40; ++i) {
      Request request;
      request.prompt = random_prompt(random, 100);
      request.max_new_tokens = 900;
      request.on_event = collector.listener();
      ids.push_back(*engine->submit(std::move(request)));
    }
  }
  for (const RequestId id : ids) {
    const Collector::Record record = collector.record(id);
    ASSERT_EQ(record.finals.size(), 1U);
    EXPECT_EQ(record.finals[0].reasons[0], FinishReason::kAbort);
  }
}

TEST(Engine, ChoicesShareThePromptAndDiffer) {
  auto engine = open(small_options());
  std::mt19937 random(6);
  Request request;
  request.prompt = random_prompt(random, 200);
  request.max_new_tokens = 20;
  request.n = 4;
  request.sampling = {.temperature = 1.0F, .seed = 9};
  const auto records = run(*engine, {request, request});
  ASSERT_EQ(records[0].tokens.size(), 4U);
  EXPECT_EQ(records[0].tokens, records[1].tokens);  // the same seed repeats
  EXPECT_NE(records[0].tokens.at(0), records[0].tokens.at(1));
  EXPECT_GE(engine->stats().cached_tokens, 3 * 192);
  ASSERT_EQ(records[0].finals.size(), 1U);
  EXPECT_EQ(records[0].finals[0].generated_tokens, 80);
}

TEST(Engine, StopIdsEndAndMinNewTokensHoldsThemBack) {
  auto engine = open(small_options());
  std::mt19937 random(8);
  Request request;
  request.prompt = random_prompt(random, 20);
  request.max_new_tokens = 30;
  const auto free_run = run(*engine, {request})[0].tokens.at(0);
  const std::int32_t stop = free_run[5];
  const auto first = std::find(free_run.begin(), free_run.end(), stop) - free_run.begin();
  request.stop_ids = {stop};
  auto record = run(*engine, {request})[0];
  EXPECT_EQ(record.tokens.at(0).size(), static_cast<std::size_t>(first) + 1);
  EXPECT_EQ(record.finals[0].reasons[0], FinishReason::kStop);
  request.min_new_tokens = static_cast<std::int32_t>(first) + 4;
  record = run(*engine, {request})[0];
  const auto& tokens = record.tokens.at(0);
  EXPECT_GT(tokens.size(), static_cast<std::size_t>(first) + 4);
  for (std::ptrdiff_t i = 0; i < first + 4; ++i) EXPECT_NE(tokens[static_cast<std::size_t>(i)], stop);
}

TEST(Engine, BadWordsNeverAppear) {
  auto engine = open(small_options());
  std::mt19937 random(9);
  Request request;
  request.prompt = random_prompt(random, 20);
  request.max_new_tokens = 40;
  const auto before = run(*engine, {request})[0].tokens.at(0);
  request.bad_words = {{before[3]}, {before[7], before[8]}};
  const auto after = run(*engine, {request})[0].tokens.at(0);
  for (std::size_t i = 0; i < after.size(); ++i) {
    EXPECT_NE(after[i], before[3]);
    const bool follows = i > 0 && after[i - 1] == before[7];
    EXPECT_FALSE(follows && after[i] == before[8]);
  }
}

TEST(Engine, NoPairOfTokensThatIsABadWordAppears) {
  auto engine = open(small_options());
  std::mt19937 random(19);
  Request request;
  request.prompt = random_prompt(random, 20);
  request.max_new_tokens = 40;
  for (int round = 0; round < 4; ++round) {  // each answer's pairs are forbidden to the next
    const auto tokens = run(*engine, {request})[0].tokens.at(0);
    ASSERT_EQ(tokens.size(), 40U);
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const std::vector<std::int32_t> pair = {tokens[i], tokens[i + 1]};
      EXPECT_EQ(std::ranges::count(request.bad_words, pair), 0) << "round " << round << ", token " << i;
    }
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) request.bad_words.push_back({tokens[i], tokens[i + 1]});
  }
}

TEST(Engine, LogitsComeBeforeTheTokenThatIsSampledFromThem) {
  auto engine = open(small_options());
  for (const RequestWants::Logits wanted : {RequestWants::Logits::kGenerated, RequestWants::Logits::kAll}) {
    std::mt19937 random(21);
    Request request;
    request.prompt = random_prompt(random, 30);
    request.max_new_tokens = 6;
    request.wants.logits = wanted;
    std::vector<std::int32_t> best;    // of the last row of logits that came, for each token that came
    std::vector<std::int32_t> tokens;  // greedy
    std::vector<float> row;
    Collector collector;
    request.on_event = [&, forward = collector.listener()](const Event& event) {
      if (event.kind == Event::Kind::kLogits) {
        const auto last = event.values.last(static_cast<std::size_t>(engine->vocab_size()));
        row.assign(last.begin(), last.end());
      }
      if (event.kind == Event::Kind::kToken) {
        best.push_back(static_cast<std::int32_t>(std::ranges::max_element(row) - row.begin()));
        tokens.push_back(event.token);
      }
      forward(event);
    };
    ASSERT_TRUE(engine->submit(std::move(request)).ok());
    collector.wait_for(1);
    EXPECT_EQ(tokens.size(), 6U);
    EXPECT_EQ(tokens, best);
  }
}

TEST(Engine, SpendsNoStepBehindTheLastTokenThatARequestMayHave) {
  auto engine = open(small_options());
  run(*engine, {{.prompt = {1, 2, 3}, .max_new_tokens = 10}});
  expect_no_leak(*engine);  // which also waits until the counters have been published
  EXPECT_EQ(engine->stats().steps, 10);
  EXPECT_EQ(engine->stats().decode_steps, 8);  // the first follows the prompt
}

TEST(Engine, EndsAtTheContextAndAtTheCache) {
  EngineOptions options = small_options();
  options.session_len = 100;
  auto engine = open(options);
  std::mt19937 random(10);
  Request request;
  request.prompt = random_prompt(random, 90);
  request.max_new_tokens = 500;
  auto record = run(*engine, {request})[0];
  EXPECT_EQ(record.finals[0].reasons[0], FinishReason::kLength);
  EXPECT_EQ(record.tokens.at(0).size(), 10U);

  options.session_len = 1024;
  options.kv_blocks = 2;
  engine = open(options);
  record = run(*engine, {request})[0];
  EXPECT_EQ(record.finals[0].reasons[0], FinishReason::kLength);
  EXPECT_EQ(record.tokens.at(0).size(), 128U - 90U + 1U);  // the last one needs no room
  expect_no_leak(*engine);
}

TEST(Engine, RefusesWhatCanNeverRun) {
  EngineOptions options = small_options();
  options.kv_blocks = 2;
  auto engine = open(options);
  const auto code = [&](const Request& request) { return engine->submit(request).status().code(); };
  EXPECT_EQ(code({.prompt = {}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.prompt = {96}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.prompt = {-1}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.prompt = std::vector<std::int32_t>(129, 1)}), StatusCode::kTooLong);
  EXPECT_EQ(code({.prompt = std::vector<std::int32_t>(1024, 1)}), StatusCode::kTooLong);
  EXPECT_EQ(code({.prompt = {1}, .n = 0}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.prompt = {1}, .n = 129}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.prompt = {1}, .sampling = {.temperature = NAN}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.prompt = {1}, .sampling = {.top_p = 1.5F}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.prompt = {1}, .sampling = {.logit_bias = {{96, 1.0F}}}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.prompt = {1}, .bad_words = {{}}}), StatusCode::kInvalidArgument);
}

TEST(Engine, RefusesMoreThanMayWaitAndTakesThemLater) {
  EngineOptions options = small_options();
  options.max_batch_size = 1;
  options.max_queue = 2;
  auto engine = open(options);
  Collector collector;
  const auto submit = [&](std::int32_t n, std::int32_t new_tokens) {
    return engine->submit(
        {.prompt = {1, 2, 3}, .max_new_tokens = new_tokens, .n = n, .on_event = collector.listener()});
  };
  const auto running = submit(8, 900);  // its choices are one request, and that one runs
  ASSERT_TRUE(running.ok());
  while (engine->stats().running == 0) std::this_thread::yield();
  ASSERT_TRUE(submit(1, 5).ok());
  ASSERT_TRUE(submit(1, 5).ok());
  const auto refused = submit(1, 5);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted) << refused.status().message();
  engine->cancel(*running);
  collector.wait_for(3);
  ASSERT_TRUE(submit(1, 5).ok());
  collector.wait_for(4);
  expect_no_leak(*engine);
}

TEST(Engine, LogitsOfAllRowsComeOnceAndAgreeHoweverTheyAreComputed) {
  std::mt19937 random(12);
  Request request;
  request.prompt = random_prompt(random, 150);
  request.max_new_tokens = 5;
  request.wants.logits = RequestWants::Logits::kAll;
  auto engine = open(small_options());
  const auto records = run(*engine, {request, request, request});
  EXPECT_EQ(records[0].logits.size(), 154U);  // the last token's own prediction is never computed
  EXPECT_EQ(records[0].logits, records[1].logits);
  EXPECT_EQ(records[2].finals[0].cached_tokens, 0);
  request.wants.logits = RequestWants::Logits::kGenerated;
  const auto generated = run(*engine, {request})[0].logits;
  ASSERT_EQ(generated.size(), 5U);
  for (const auto& [position, sum] : generated) EXPECT_EQ(sum, records[0].logits.at(position));

  EngineOptions pressed = small_options();
  pressed.kv_blocks = 4;
  request.wants.logits = RequestWants::Logits::kAll;
  for (const auto& record : run(*open(pressed), {request, request, request})) {
    EXPECT_EQ(record.logits, records[0].logits);
  }
}

TEST(Engine, HiddenStatesOfThePrompt) {
  std::mt19937 random(13);
  Request request;
  request.prompt = random_prompt(random, 100);
  request.max_new_tokens = 0;
  request.wants.hidden = RequestWants::Hidden::kLast;
  auto engine = open(small_options());
  const auto last = run(*engine, {request})[0];
  ASSERT_EQ(last.hidden.size(), 64U);
  EXPECT_TRUE(last.tokens.empty());
  EXPECT_EQ(last.finals[0].reasons[0], FinishReason::kLength);
  request.wants.hidden = RequestWants::Hidden::kMean;
  const auto mean = run(*engine, {request})[0].hidden;
  // The mean over a prompt is the mean of the last states of all its beginnings.
  std::vector<double> sum(64, 0.0);
  request.wants.hidden = RequestWants::Hidden::kLast;
  const auto prompt = request.prompt;
  for (std::size_t length = 1; length <= prompt.size(); ++length) {
    request.prompt.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(length));
    const auto one = run(*engine, {request})[0].hidden;
    for (std::size_t i = 0; i < 64; ++i) sum[i] += static_cast<double>(one[i]);
  }
  for (std::size_t i = 0; i < 64; ++i) EXPECT_NEAR(static_cast<double>(mean[i]), sum[i] / 100.0, 1e-4);
}

TEST(Engine, LogprobsAreThoseOfTheModel) {
  std::mt19937 random(14);
  Request request;
  request.prompt = random_prompt(random, 10);
  request.max_new_tokens = 1;
  request.sampling.logprobs = 3;
  auto engine = open(small_options());
  std::vector<float> row;
  std::vector<TokenLogprob> top;
  float chosen = 1.0F;
  Collector collector;
  const auto forward = collector.listener();
  request.wants.logits = RequestWants::Logits::kGenerated;
  request.on_event = [&](const Event& event) {
    if (event.kind == Event::Kind::kLogits) row.assign(event.values.begin(), event.values.end());
    if (event.kind == Event::Kind::kToken) {
      top.assign(event.top.begin(), event.top.end());
      chosen = event.logprob;
    }
    forward(event);
  };
  ASSERT_TRUE(engine->submit(std::move(request)).ok());
  collector.wait_for(1);
  double sum = 0;
  for (const float logit : row) sum += std::exp(static_cast<double>(logit));
  ASSERT_EQ(top.size(), 3U);
  EXPECT_EQ(chosen, top[0].logprob);
  for (const TokenLogprob& entry : top) {
    const double expected = static_cast<double>(row[static_cast<std::size_t>(entry.token)]) - std::log(sum);
    EXPECT_NEAR(static_cast<double>(entry.logprob), expected, 1e-4);
  }
}

TEST(Engine, LogitsThatAreNotFiniteEndTheRequestWithAnError) {
  auto engine = open(small_options(), {.poisoned_tensor = "model.layers.1.post_attention_layernorm.weight"});
  const auto record = run(*engine, {{.prompt = {1, 2, 3}, .n = 3}})[0];
  ASSERT_EQ(record.finals.size(), 1U);
  EXPECT_EQ(record.finals[0].reasons, std::vector<FinishReason>(3, FinishReason::kError));
  EXPECT_EQ(record.finals[0].status.code(), StatusCode::kInternal);
  expect_no_leak(*engine);                           // which also waits until the counters have been published
  EXPECT_EQ(engine->stats().corrupted_requests, 1);  // once, whatever its choices
}

TEST(OpenEngine, RefusesOptionsAndMemoryThatCannotBe) {
  const auto code = [](const EngineOptions& options) {
    return open_engine(make_random_checkpoint({}), options, nullptr).status().code();
  };
  EngineOptions options = small_options();
  options.cache_max_entry_count = 1.5;
  EXPECT_EQ(code(options), StatusCode::kInvalidArgument);
  options = small_options();
  options.max_batch_size = 0;
  EXPECT_EQ(code(options), StatusCode::kInvalidArgument);
  options = small_options();
  options.kv_blocks = std::int64_t{1} << 40;
  EXPECT_EQ(code(options), StatusCode::kResourceExhausted);
}

TEST(OpenEngine, SaysWhereItRunsAndThatThereIsNoCuda) {
  EngineOptions options = small_options();
  const auto opened = open_engine(make_random_checkpoint({}), options, nullptr);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const bool cuda = is_cuda(test_device());
  EXPECT_EQ(opened->ran_on, cuda ? Device::kCuda : Device::kCpu);
  EXPECT_TRUE(opened->device.starts_with(cuda ? "cuda " : "cpu ")) << opened->device;
  EXPECT_TRUE(opened->notes.empty());

  const ops::CudaSupport support = ops::cuda_support();
  if (support.problem.empty()) return;
  options.device = Device::kCuda;
  const Status refused = open_engine(make_random_checkpoint({}), options, nullptr).status();
  EXPECT_EQ(refused.code(), StatusCode::kUnsupported);
  EXPECT_NE(refused.message().find(support.problem), std::string::npos) << refused.message();
  options.device = Device::kAuto;
  const auto fallen_back = open_engine(make_random_checkpoint({}), options, nullptr);
  ASSERT_TRUE(fallen_back.ok());
  EXPECT_EQ(fallen_back->ran_on, Device::kCpu);
  // Of a missing device the user is told, where the program could have used one.
  EXPECT_EQ(fallen_back->notes.size(), support.built ? 1U : 0U);
}

TEST(OpenEngine, TheCacheTakesItsShareAndNoMoreThanItCanUse) {
  EngineOptions options = small_options();
  options.kv_blocks = 0;
  options.cache_max_entry_count = 0.5;
  auto engine = open(options);
  EXPECT_EQ(engine->memory_plan().kv_blocks, 16 * 16);  // 16 sequences of 1,024 tokens
  options.cache_max_entry_count = 1e-9;
  engine = open(options);
  EXPECT_EQ(engine->memory_plan().kv_blocks, 16);  // one sequence
}

}  // namespace
}  // namespace lanner
