// The promise behind --deterministic, on the real model: 32 mixed requests give the same tokens together and alone, in
// chunks, with the prefix cache warm or cold, and when preemption is forced. Run once for each body of kernels
// (tests/isa_main.cpp).

#include <algorithm>

#include "real_model.h"

namespace lanner::test {
namespace {

EngineOptions options_for(ComputeType dtype) {
  EngineOptions options = test_engine_options();
  options.dtype = dtype;
  options.session_len = 1024;
  options.max_batch_size = 32;
  options.kv_blocks = 2048;
  return options;
}

/// Prompts in several languages, code, blanks, chats, of 1 to 700 tokens; half of them greedy, some with penalties.
std::vector<Request> mixed_requests(const std::vector<Golden>& goldens) {
  std::vector<Request> requests;
  for (std::size_t i = 0; i < goldens.size(); ++i) {
    Request request;
    request.prompt = goldens[i].prompt;
    request.max_new_tokens = static_cast<std::int32_t>(8 + i % 5 * 6);
    if (i % 2 == 1) request.sampling = {.temperature = 0.9F, .top_k = 40, .top_p = 0.95F, .seed = i};
    if (i % 5 == 2) request.sampling.repetition_penalty = 1.2F;
    requests.push_back(std::move(request));
  }
  return requests;
}

/// Short prompts with long answers: what preemption is made for.
std::vector<Request> growing_requests(const std::vector<Golden>& goldens) {
  std::vector<Request> requests;
  for (std::size_t i = 0; i < 8; ++i) requests.push_back({.prompt = goldens[i].prompt, .max_new_tokens = 140});
  return requests;
}

std::vector<std::vector<std::int32_t>> tokens_of(Engine& engine, std::vector<Request> requests) {
  std::vector<std::vector<std::int32_t>> tokens;
  for (Answer& one : answer(engine, std::move(requests))) tokens.push_back(std::move(one.tokens));
  return tokens;
}

class RealModel : public testing::TestWithParam<ComputeType> {};

TEST_P(RealModel, TokensDependOnTheRequestAlone) {
  const auto goldens = read_goldens();
  const auto requests = mixed_requests(goldens);
  const auto growing = growing_requests(goldens);
  ASSERT_EQ(requests.size(), 32U);
  EngineOptions options = options_for(GetParam());
  options.max_batch_size = 1;
  options.enable_prefix_caching = false;
  auto engine = open_model("LANNER_TEST_GGUF", options);
  ASSERT_NE(engine, nullptr);
  const auto expected = tokens_of(*engine, requests);
  const auto grown = tokens_of(*engine, growing);
  EXPECT_TRUE(std::ranges::all_of(expected, [](const auto& tokens) { return tokens.size() >= 8; }));

  engine = open_model("LANNER_TEST_GGUF", options_for(GetParam()));
  EXPECT_EQ(tokens_of(*engine, requests), expected) << "together, prefix cache cold";
  const std::int64_t cold = engine->stats().cached_tokens;
  EXPECT_EQ(tokens_of(*engine, requests), expected) << "together, prefix cache warm";
  EXPECT_GT(engine->stats().cached_tokens, cold + 500);

  options = options_for(GetParam());
  options.max_prefill_token_num = 48;
  options.threads = 3;
  engine = open_model("LANNER_TEST_GGUF", options);
  EXPECT_EQ(tokens_of(*engine, requests), expected) << "in chunks";

  options = options_for(GetParam());
  options.kv_blocks = 16;  // of 64 tokens: eight answers need three each
  engine = open_model("LANNER_TEST_GGUF", options);
  EXPECT_EQ(tokens_of(*engine, growing), grown) << "with preemption";
  EXPECT_GT(engine->stats().preemptions, 0);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, RealModel, testing::Values(ComputeType::kAuto, ComputeType::kFloat32),
                         [](const auto& dtype) { return dtype.param == ComputeType::kAuto ? "auto" : "float32"; });

}  // namespace
}  // namespace lanner::test
