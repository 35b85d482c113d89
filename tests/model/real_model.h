#pragma once
// What the tests over the real 135M model share. `make test` sets LANNER_TEST_GGUF, the GGUF file, and
// LANNER_TEST_MODEL_DIR, the same weights as a Hugging Face folder. LANNER_TEST_GOLDENS is the goldens' file where the
// program runs on another machine than it was built on.

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/open_engine.h"
#include "engine/test_engine_options.h"

namespace lanner::test {

/// One prompt of golden_smollm2.json with what Transformers made of it.
struct Golden {
  std::string name;
  std::vector<std::int32_t> prompt;
  std::vector<std::int32_t> greedy;
  std::vector<double> margins;  // of each greedy token: its logit's lead over the runner-up
  std::vector<std::int32_t> logit_ids;
  std::vector<float> logits;  // of logit_ids, after the prompt
  double log_sum_exp = 0;
  // On some prompts, else empty:
  double cross_entropy = 0;
  std::vector<float> hidden_last;
  std::vector<float> hidden_mean;
};

inline std::vector<Golden> read_goldens() {
  const char* elsewhere = std::getenv("LANNER_TEST_GOLDENS");
  std::ifstream file(elsewhere == nullptr ? LANNER_GOLDEN_FILE : elsewhere);
  const nlohmann::json document = nlohmann::json::parse(file);
  std::vector<Golden> goldens;
  for (const auto& entry : document.at("prompts")) {
    goldens.push_back({entry.at("name"), entry.at("prompt"), entry.at("greedy"), entry.at("margins"),
                       entry.at("logit_ids"), entry.at("logits"), entry.at("log_sum_exp")});
    if (!entry.contains("outputs")) continue;
    const nlohmann::json& outputs = entry.at("outputs");
    goldens.back().cross_entropy = outputs.at("cross_entropy");
    goldens.back().hidden_last = outputs.at("hidden_last").get<std::vector<float>>();
    goldens.back().hidden_mean = outputs.at("hidden_mean").get<std::vector<float>>();
  }
  return goldens;
}

/// The model that an environment variable names, or null after a failure.
inline std::unique_ptr<Engine> open_model(const char* variable, const EngineOptions& options) {
  const char* path = std::getenv(variable);
  if (path == nullptr) {
    ADD_FAILURE() << variable << " is not set: `make test` sets it";
    return nullptr;
  }
  auto checkpoint = model::open_checkpoint(path);
  if (!checkpoint.ok()) {
    ADD_FAILURE() << checkpoint.status().message();
    return nullptr;
  }
  auto opened = open_engine(*checkpoint, options, nullptr);
  if (!opened.ok()) {
    ADD_FAILURE() << opened.status().message();
    return nullptr;
  }
  return std::move(opened->engine);
}

/// What the engine made of one prompt.
struct Answer {
  std::vector<std::int32_t> tokens;
  std::vector<float> first_logits;  // (vocab), of a request that wants the generated ones
};

/// Submits all requests, of one choice each, and returns when the last has ended.
inline std::vector<Answer> answer(Engine& engine, std::vector<Request> requests) {
  std::vector<Answer> answers(requests.size());
  std::mutex mutex;
  std::condition_variable ended;
  std::size_t left = requests.size();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_event = [&, i](const Event& event) {
      Answer& mine = answers[i];  // the engine's thread alone writes it
      if (event.kind == Event::Kind::kToken) mine.tokens.push_back(event.token);
      if (event.kind == Event::Kind::kLogits && mine.first_logits.empty()) {
        mine.first_logits.assign(event.values.begin(), event.values.end());
      }
      if (event.kind != Event::Kind::kFinal) return;
      EXPECT_TRUE(event.status.ok()) << event.status.message();
      const std::lock_guard lock(mutex);
      if (--left == 0) ended.notify_all();
    };
    const auto id = engine.submit(std::move(requests[i]));
    EXPECT_TRUE(id.ok()) << id.status().message();
    if (id.ok()) continue;
    const std::lock_guard lock(mutex);
    --left;
  }
  std::unique_lock lock(mutex);
  ended.wait(lock, [&] { return left == 0; });
  return answers;
}

}  // namespace lanner::test
