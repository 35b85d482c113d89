#pragma once
// Answers of /v1/messages, streamed or whole, and the form of errors there.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/answer_parser.h"
#include "server/answer_task.h"
#include "server/json.h"

namespace lanner::server {

struct AnthropicAnswerOptions {
  std::string model;
  std::vector<std::string> stops;  // that the request asked for: a template has stop strings of its own besides
  std::int64_t prompt_tokens = 0;
  AnswerReading reading{};
};

std::unique_ptr<AnswerFormat> make_anthropic_format(AnthropicAnswerOptions options);

Json anthropic_error(int status, const std::string& message);

}  // namespace lanner::server
