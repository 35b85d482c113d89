#pragma once
// What the answers of /v1/chat/completions and /v1/completions have in common.

#include <string>
#include <string_view>

#include "server/answer_task.h"
#include "server/json.h"

namespace lanner::server {

struct OpenAiAnswerOptions {
  const Pipeline* pipeline = nullptr;  // spells tokens
  std::string id;
  std::string model;
  bool include_usage = false;  // in a stream
  int logprobs = -1;           // -1: none; how many others are told
};

Json usage_json(const TokenCounts& counts);

/// `{"id":…,"object":…,"created":…,"model":…,"choices":[`, with which every event of a stream begins.
std::string event_head(const OpenAiAnswerOptions& options, const char* object);
/// A logprob as JSON knows it: minus infinity is not a number there.
double finite_logprob(float logprob);
/// The bytes as text.
std::string lossy_text(std::string_view bytes);

/// Puts an event, and after a stream's last one `[DONE]`.
void put_event(std::string_view json, std::string& out);
void put_done(std::string& out);
void put_failure(const Refusal& refusal, std::string& out);

}  // namespace lanner::server
