#pragma once
// Answers of /v1/responses, streamed or whole.

#include <memory>

#include "lanner/pipeline.h"
#include "server/answer_parser.h"
#include "server/answer_task.h"
#include "server/json.h"

namespace lanner::server {

struct ResponseOptions {
  const Pipeline* pipeline = nullptr;  // spells tokens
  Json echo{};                         // the members of the answer that repeat what was asked
  int logprobs = -1;                   // -1: none; how many others are told
  AnswerReading reading{};
};

std::unique_ptr<AnswerFormat> make_response_format(ResponseOptions options);

}  // namespace lanner::server
