#include "server/openai_answer.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <utility>

#include "server/endpoints.h"
#include "server/generation_request.h"

namespace lanner::server {
namespace {

std::string event_head(const OpenAiAnswerOptions& options, const char* object) {
  const Json head{{"id", options.id}, {"object", object}, {"created", unix_seconds()}, {"model", options.model}};
  std::string text = to_text(head);
  text.back() = ',';  // the brace
  return text + R"("choices":[)";
}

Json token_json(const Pipeline& pipeline, std::int32_t token, float logprob) {
  const std::string bytes = pipeline.token_bytes(token);
  Json list = Json::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return {{"token", lossy_text(bytes)}, {"logprob", finite_logprob(logprob)}, {"bytes", std::move(list)}};
}

}  // namespace

Json usage_json(const TokenCounts& counts) {
  return {{"prompt_tokens", counts.prompt},
          {"completion_tokens", counts.generated},
          {"total_tokens", counts.prompt + counts.generated},
          {"prompt_tokens_details", {{"cached_tokens", counts.cached}}}};
}

double finite_logprob(float logprob) {
  constexpr double kLowest = -9999.0;
  return std::isfinite(logprob) ? static_cast<double>(logprob) : kLowest;
}

Json token_logprobs_json(const Pipeline& pipeline, const std::vector<TokenLogprobs>& tokens) {
  Json list = Json::array();
  for (const TokenLogprobs& token : tokens) {
    Json entry = token_json(pipeline, token.token, token.logprob);
    entry["top_logprobs"] = Json::array();
    for (const TokenLogprob& other : token.top) {
      entry["top_logprobs"].push_back(token_json(pipeline, other.token, other.logprob));
    }
    list.push_back(std::move(entry));
  }
  return list;
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

void put_named_event(std::string_view name, std::string_view json, std::string& out) {
  out += "event: ";
  out += name;
  out += '\n';
  put_event(json, out);
}

void put_done(std::string& out) { put_event("[DONE]", out); }

void put_failure(const Refusal& refusal, std::string& out) {
  put_event(to_text(error_body(refusal)), out);
  put_done(out);
}

OpenAiFormat::OpenAiFormat(OpenAiAnswerOptions options, const char* event, const char* object)
    : options_(std::move(options)), object_(object), head_(event_head(options_, event)) {}

void OpenAiFormat::put_choice(std::size_t index, std::string_view addition, std::string_view logprobs,
                              std::string_view reason, std::string& out) const {
  out += "data: ";
  out += head_;
  fmt::format_to(std::back_inserter(out), R"({{"index":{},{},"logprobs":{},"finish_reason":{}}}])", index, addition,
                 logprobs, reason);
  out += options_.include_usage ? ",\"usage\":null}\n\n" : "}\n\n";
}

void OpenAiFormat::end(const AnswerSoFar& answer, std::string& out) {
  for (std::size_t i = 0; i < answer.choices.size(); ++i) {
    finish_choice(i, out);
    put_choice(i, no_addition(), "null", fmt::format("\"{}\"", end_reason(i, answer.choices[i].reason)), out);
  }
  if (options_.include_usage) put_event(head_ + "],\"usage\":" + to_text(usage_json(answer.counts)) + "}", out);
  put_done(out);
}

HttpReply OpenAiFormat::whole(const AnswerSoFar& answer) {
  Json choices = Json::array();
  for (std::size_t i = 0; i < answer.choices.size(); ++i) choices.push_back(choice_json(i, answer.choices[i]));
  return json_reply({{"id", options_.id},
                     {"object", object_},
                     {"created", unix_seconds()},
                     {"model", options_.model},
                     {"choices", std::move(choices)},
                     {"usage", usage_json(answer.counts)}});
}

}  // namespace lanner::server
