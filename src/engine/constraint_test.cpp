// Answers that have to follow a grammar, over a small random model. The grammar is a fake: which tokens may come
// follows from the last one, so that a mask that is a step late, or another row's, shows at once.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "engine/engine_test_support.h"

namespace lanner {
namespace {

using namespace testing_support;

constexpr std::int32_t kVocab = 96;
constexpr std::int32_t kFirst = 11;

/// Two tokens for each that may have come before.
std::array<std::int32_t, 2> followers(std::int32_t token) {
  return {(token * 7 + 3) % kVocab, (token * 5 + 50) % kVocab};
}

struct FakeRules {
  std::int32_t length = 1 << 20;       // tokens, behind which nothing may follow
  std::int32_t only = -1;              // not -1: always this one
  std::int32_t mask_fails_after = -1;  // tokens
  std::int32_t accept_fails_after = -1;
  bool begin_fails = false;
};

class FakeConstraint final : public TokenConstraint {
 public:
  FakeConstraint(const FakeRules& rules, std::atomic<bool>& engine_thread)
      : rules_(rules), same_thread_(engine_thread) {}

  Status allowed(std::span<std::uint32_t> words) override {
    if (accepted_ > 0 && std::this_thread::get_id() == engine_thread_) same_thread_ = true;
    if (accepted_ == rules_.mask_fails_after) return internal_error("no mask today");
    const auto allow = [&](std::int32_t token) { words[static_cast<std::size_t>(token / 32)] |= 1U << (token % 32); };
    EXPECT_EQ(words.size(), 3U);
    if (rules_.only >= 0) {
      allow(rules_.only);
    } else if (last_ < 0) {
      allow(kFirst);
    } else {
      for (const std::int32_t token : followers(last_)) allow(token);
    }
    return {};
  }
  Result<bool> accept(std::int32_t token) override {
    engine_thread_ = std::this_thread::get_id();
    if (accepted_ == rules_.accept_fails_after) return internal_error("I do not take this");
    last_ = token;
    return ++accepted_ == rules_.length;
  }

 private:
  const FakeRules rules_;
  std::atomic<bool>& same_thread_;
  std::thread::id engine_thread_;
  std::int32_t last_ = -1;
  std::int32_t accepted_ = 0;
};

class FakeGrammar final : public TokenGrammar {
 public:
  explicit FakeGrammar(const FakeRules& rules = {}) : rules_(rules) {}
  Result<std::unique_ptr<TokenConstraint>> begin() const override {
    if (rules_.begin_fails) return internal_error("not today");
    return std::unique_ptr<TokenConstraint>(std::make_unique<FakeConstraint>(rules_, same_thread));
  }
  mutable std::atomic<bool> same_thread{false};  // a mask was computed on the engine's own

 private:
  const FakeRules rules_;
};

Request constrained(const FakeRules& rules = {}, std::int32_t max_new_tokens = 40) {
  Request request;
  request.prompt = {1, 2, 3, 4};
  request.max_new_tokens = max_new_tokens;
  request.grammar = std::make_shared<const FakeGrammar>(rules);
  return request;
}

void expect_followed(const std::vector<std::int32_t>& tokens) {
  ASSERT_FALSE(tokens.empty());
  EXPECT_EQ(tokens.front(), kFirst);
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    const auto allowed = followers(tokens[i - 1]);
    ASSERT_NE(std::ranges::find(allowed, tokens[i]), allowed.end()) << "token " << i << " is " << tokens[i];
  }
}

TEST(Constraint, EveryTokenIsAllowedAndOthersAreNotConcerned) {
  auto engine = open(small_options());
  const auto plain = mixed_requests(12, 5);
  const auto expected = tokens_of(run(*engine, plain));
  auto requests = plain;
  for (std::uint64_t i = 0; i < 8; ++i) {
    Request request = constrained();
    request.n = 2;
    request.prompt.push_back(static_cast<std::int32_t>(i));
    if (i % 2 == 1) request.sampling = {.temperature = 2.0F, .seed = i};
    if (i % 3 == 1) request.sampling.repetition_penalty = 1.3F;
    if (i % 4 == 1) request.sampling.logprobs = 1;
    requests.push_back(std::move(request));
  }
  const auto records = run(*engine, requests);
  auto tokens = tokens_of(records);
  for (std::size_t i = plain.size(); i < tokens.size(); ++i) {
    for (std::int32_t choice = 0; choice < 2; ++choice) {
      expect_followed(records[i].tokens.at(choice));
      EXPECT_EQ(records[i].tokens.at(choice).size(), 40U);
    }
    EXPECT_EQ(records[i].finals.front().reasons.front(), FinishReason::kLength);
  }
  tokens.resize(plain.size());
  EXPECT_EQ(tokens, expected);
  expect_no_leak(*engine);
}

TEST(Constraint, MasksAreComputedBesideTheEnginesThread) {
  auto engine = open(small_options());
  const auto grammar = std::make_shared<const FakeGrammar>();
  Request request = constrained();
  request.grammar = grammar;
  expect_followed(tokens_of(run(*engine, {request})).front());
  EXPECT_FALSE(grammar->same_thread);
}

TEST(Constraint, TheGrammarEndsTheAnswer) {
  auto engine = open(small_options());
  const auto records = run(*engine, {constrained({.length = 7})});
  EXPECT_EQ(records[0].tokens.at(0).size(), 7U);
  EXPECT_EQ(records[0].finals[0].reasons.front(), FinishReason::kStop);
}

TEST(Constraint, AStopTokenEndsTheAnswerUnasked) {
  auto engine = open(small_options());
  Request request = constrained({.only = 33, .accept_fails_after = 0});
  request.stop_ids = {33};
  const auto records = run(*engine, {request});
  EXPECT_EQ(records[0].tokens.at(0), std::vector<std::int32_t>{33});
  EXPECT_EQ(records[0].finals[0].reasons.front(), FinishReason::kStop);
}

TEST(Constraint, SurvivesPreemption) {
  EngineOptions options = small_options();
  options.kv_blocks = 10;
  auto engine = open(options);
  std::vector<Request> requests;
  for (std::int32_t i = 0; i < 8; ++i) {
    requests.push_back(constrained({}, 150));
    requests.back().prompt.push_back(i);
  }
  for (const auto& tokens : tokens_of(run(*engine, requests))) {
    expect_followed(tokens);
    EXPECT_EQ(tokens.size(), 150U);
  }
  EXPECT_GT(engine->stats().preemptions, 0);
  expect_no_leak(*engine);
}

TEST(Constraint, OneThatDiesEndsItsRequestAlone) {
  auto engine = open(small_options());
  auto requests = mixed_requests(6, 9);
  const auto expected = tokens_of(run(*engine, requests));
  requests.push_back(constrained({.mask_fails_after = 3}));
  requests.push_back(constrained({.accept_fails_after = 5}));
  requests.push_back(constrained());
  const auto records = run(*engine, requests);
  auto tokens = tokens_of(records);
  expect_followed(tokens.back());
  EXPECT_EQ(tokens.back().size(), 40U);
  const Event& no_mask = records[6].finals[0];
  EXPECT_EQ(tokens[6].size(), 3U);
  EXPECT_EQ(no_mask.reasons.front(), FinishReason::kError);
  EXPECT_EQ(no_mask.status.message(), "the grammar: no mask today");
  const Event& not_taken = records[7].finals[0];
  EXPECT_EQ(tokens[7].size(), 6U);
  EXPECT_EQ(not_taken.reasons.front(), FinishReason::kError);
  EXPECT_EQ(not_taken.status.message(), "the grammar: I do not take this");
  tokens.resize(expected.size());
  EXPECT_EQ(tokens, expected);
  expect_no_leak(*engine);
}

TEST(Constraint, WhatCannotBeginIsRefused) {
  auto engine = open(small_options());
  EXPECT_EQ(engine->submit(constrained({.begin_fails = true})).status().message(), "not today");
  Request request = constrained();
  request.min_new_tokens = 2;
  EXPECT_EQ(engine->submit(request).status().code(), StatusCode::kInvalidArgument);
  request = constrained();
  request.bad_words = {{5}};
  EXPECT_EQ(engine->submit(request).status().code(), StatusCode::kInvalidArgument);
  expect_no_leak(*engine);
}

}  // namespace
}  // namespace lanner
