#include "server/openai_answer.h"

#include <algorithm>
#include <cmath>

#include "server/generation_request.h"

namespace lanner::server {

Json usage_json(const TokenCounts& counts) {
  return {{"prompt_tokens", counts.prompt},
          {"completion_tokens", counts.generated},
          {"total_tokens", counts.prompt + counts.generated},
          {"prompt_tokens_details", {{"cached_tokens", counts.cached}}}};
}

std::string event_head(const OpenAiAnswerOptions& options, const char* object) {
  const Json head{{"id", options.id}, {"object", object}, {"created", unix_seconds()}, {"model", options.model}};
  std::string text = to_text(head);
  text.back() = ',';  // the brace
  return text + R"("choices":[)";
}

double finite_logprob(float logprob) {
  constexpr double kLowest = -9999.0;
  return std::isfinite(logprob) ? static_cast<double>(logprob) : kLowest;
}

std::string lossy_text(std::string_view bytes) {
  // nlohmann mends text only while it writes it.
  const std::string quoted = json_string(bytes);
  return Json::parse(quoted).get<std::string>();
}

void put_event(std::string_view json, std::string& out) {
  out += "data: ";
  out += json;
  out += "\n\n";
}

void put_done(std::string& out) { put_event("[DONE]", out); }

void put_failure(const Refusal& refusal, std::string& out) {
  put_event(to_text(error_body(refusal)), out);
  put_done(out);
}

}  // namespace lanner::server
