// Runs a tiny checkpoint through the engine and holds it against its golden, for tests/model/test_tiny_models.py. Not
// installed.
//
//   tiny_probe MODEL GOLDEN.json NAME
//
// MODEL is a folder or a GGUF file. Prints one line of JSON: how many tokens there were and how many of them are those
// of the golden, and the largest difference of a logit, as a share of the largest logit of its row. Where the tokens
// part, the logits behind them have different inputs and count for nothing. Status 1 when the model cannot be opened.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <fstream>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/open_engine.h"
#include "engine/test_engine_options.h"

namespace lanner {
namespace {

using Json = nlohmann::json;

struct Answer {
  std::vector<std::int32_t> tokens;
  std::vector<std::vector<float>> logits;  // of each token, (vocab)
};

Result<std::vector<Answer>> answer(Engine& engine, std::vector<Request> requests) {
  std::vector<Answer> answers(requests.size());
  std::mutex mutex;
  std::condition_variable ended;
  Status failure;
  std::size_t left = requests.size();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_event = [&, i](const Event& event) {
      Answer& mine = answers[i];  // the engine's thread alone writes it
      if (event.kind == Event::Kind::kToken) mine.tokens.push_back(event.token);
      if (event.kind == Event::Kind::kLogits) mine.logits.emplace_back(event.values.begin(), event.values.end());
      if (event.kind != Event::Kind::kFinal) return;
      const std::lock_guard lock(mutex);
      if (!event.status.ok()) failure = event.status;
      if (--left == 0) ended.notify_all();
    };
    const auto id = engine.submit(std::move(requests[i]));
    const std::lock_guard lock(mutex);
    if (id.ok()) continue;
    failure = id.status();
    --left;
  }
  std::unique_lock lock(mutex);
  ended.wait(lock, [&] { return left == 0; });
  if (!failure.ok()) return failure;
  return answers;
}

struct Comparison {
  std::size_t tokens = 0;
  std::size_t same_tokens = 0;
  double largest_difference = 0;
};

void compare(const Json& golden, const Answer& answer, Comparison& comparison) {
  const auto expected = golden.at("greedy").get<std::vector<std::int32_t>>();
  const auto [ours, theirs] = std::ranges::mismatch(answer.tokens, expected);
  const auto same = static_cast<std::size_t>(theirs - expected.begin());
  comparison.tokens += expected.size();
  comparison.same_tokens += same;
  for (const Json& step : golden.at("steps")) {
    const auto index = step.at("step").get<std::size_t>();
    if (index > same || index >= answer.logits.size()) continue;
    const auto ids = step.at("ids").get<std::vector<std::size_t>>();
    const auto logits = step.at("logits").get<std::vector<double>>();
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const double difference = std::abs(static_cast<double>(answer.logits[index].at(ids[i])) - logits[i]);
      // A NaN is larger than everything.
      const double share = std::isfinite(difference) ? difference / step.at("largest").get<double>() : 1e30;
      comparison.largest_difference = std::max(comparison.largest_difference, share);
    }
  }
}

Status run(const std::string& path, const Json& prompts, const Json& golden, Comparison& comparison) {
  LANNER_ASSIGN_OR_RETURN(const auto checkpoint, model::open_checkpoint(path));
  for (const Json& session : golden.at("runs")) {
    EngineOptions options = test_engine_options();
    options.dtype = ComputeType::kFloat32;
    options.session_len = session.at("session_len").get<std::int32_t>();
    options.max_batch_size = 4;
    options.max_prefill_token_num = 64;  // shorter than the long prompt
    options.threads = 1;
    LANNER_ASSIGN_OR_RETURN(const OpenedEngine opened, open_engine(checkpoint, options, nullptr));
    std::vector<Request> requests;
    for (const Json& prompt : session.at("prompts")) {
      requests.push_back({.prompt = prompts.at(prompt.at("prompt").get<std::size_t>()),
                          .max_new_tokens = static_cast<std::int32_t>(prompt.at("greedy").size()),
                          .wants = {.logits = RequestWants::Logits::kGenerated}});
    }
    LANNER_ASSIGN_OR_RETURN(const auto answers, answer(*opened.engine, std::move(requests)));
    for (std::size_t i = 0; i < answers.size(); ++i) compare(session.at("prompts").at(i), answers[i], comparison);
  }
  return {};
}

}  // namespace
}  // namespace lanner

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: tiny_probe MODEL GOLDEN.json NAME\n";
    return 2;
  }
  try {
    std::ifstream file(argv[2]);
    const auto golden = nlohmann::json::parse(file);
    lanner::Comparison comparison;
    const auto status = lanner::run(argv[1], golden.at("prompts"), golden.at("models").at(argv[3]), comparison);
    if (!status.ok()) {
      std::cerr << status.message() << '\n';
      return 1;
    }
    std::cout << fmt::format("{{\"tokens\": {}, \"same_tokens\": {}, \"largest_difference\": {:.3e}}}\n",
                             comparison.tokens, comparison.same_tokens, comparison.largest_difference);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
