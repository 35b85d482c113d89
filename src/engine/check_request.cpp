#include <fmt/format.h>

#include <cmath>

#include "engine/batching_engine.h"

namespace lanner {
namespace {

constexpr std::int32_t kMaxChoices = 128;
constexpr std::size_t kMaxStopIds = 1024;
constexpr std::size_t kMaxBadWords = 4096;
constexpr std::size_t kMaxBiases = 4096;
constexpr std::int32_t kMaxLogprobs = 1024;

Status check_range(const char* name, double value, double low, double high) {
  if (std::isfinite(value) && value >= low && value <= high) return {};
  return invalid_argument(fmt::format("{} is {}, but must be between {} and {}", name, value, low, high));
}

Status check_token(const char* name, std::int32_t token, std::int32_t vocab) {
  if (token >= 0 && token < vocab) return {};
  return invalid_argument(fmt::format("{} holds token id {}, but the vocabulary has {} tokens", name, token, vocab));
}

Status check_sampling(const SamplingOptions& sampling, std::int32_t vocab) {
  LANNER_RETURN_IF_ERROR(check_range("temperature", static_cast<double>(sampling.temperature), 0, 1000));
  LANNER_RETURN_IF_ERROR(check_range("top_p", static_cast<double>(sampling.top_p), 0, 1));
  LANNER_RETURN_IF_ERROR(check_range("min_p", static_cast<double>(sampling.min_p), 0, 1));
  LANNER_RETURN_IF_ERROR(check_range("top_k", sampling.top_k, 0, 1 << 30));
  LANNER_RETURN_IF_ERROR(
      check_range("repetition_penalty", static_cast<double>(sampling.repetition_penalty), 0.01, 100));
  LANNER_RETURN_IF_ERROR(check_range("presence_penalty", static_cast<double>(sampling.presence_penalty), -100, 100));
  LANNER_RETURN_IF_ERROR(check_range("frequency_penalty", static_cast<double>(sampling.frequency_penalty), -100, 100));
  LANNER_RETURN_IF_ERROR(check_range("logprobs", sampling.logprobs, -1, kMaxLogprobs));
  if (sampling.logit_bias.size() > kMaxBiases) return invalid_argument("logit_bias has too many entries");
  for (const auto& [token, bias] : sampling.logit_bias) {
    LANNER_RETURN_IF_ERROR(check_token("logit_bias", token, vocab));
    LANNER_RETURN_IF_ERROR(check_range("a logit_bias", static_cast<double>(bias), -1000, 1000));
  }
  return {};
}

/// A grammar leaves few tokens; what else forbids some might leave none.
Status check_grammar(const Request& request) {
  if (request.grammar == nullptr) return {};
  if (request.min_new_tokens > 0) return invalid_argument("min_new_tokens cannot go together with a grammar");
  if (!request.bad_words.empty()) return invalid_argument("bad words cannot go together with a grammar");
  return {};
}

}  // namespace

Status check_request(const Request& request, std::int32_t vocab, std::int32_t session_len, std::int64_t blocks) {
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  if (prompt == 0) return invalid_argument("the prompt is empty");
  for (const std::int32_t token : request.prompt) LANNER_RETURN_IF_ERROR(check_token("the prompt", token, vocab));
  if (prompt >= session_len && request.max_new_tokens > 0) {
    return {StatusCode::kTooLong,
            fmt::format("the prompt has {} tokens, but the context holds {} with the answer", prompt, session_len)};
  }
  if (prompt > session_len || KvBlocks::blocks_for(prompt) > blocks) {
    return {StatusCode::kTooLong, fmt::format("the prompt has {} tokens, but the KV cache holds {}", prompt,
                                              std::min<std::int64_t>(session_len, blocks * ops::kKvBlockTokens))};
  }
  LANNER_RETURN_IF_ERROR(check_range("max_new_tokens", request.max_new_tokens, 0, 1 << 30));
  LANNER_RETURN_IF_ERROR(check_range("min_new_tokens", request.min_new_tokens, 0, 1 << 30));
  LANNER_RETURN_IF_ERROR(check_range("n", request.n, 1, kMaxChoices));
  LANNER_RETURN_IF_ERROR(check_sampling(request.sampling, vocab));
  if (request.stop_ids.size() > kMaxStopIds) return invalid_argument("stop_ids has too many entries");
  for (const std::int32_t token : request.stop_ids) LANNER_RETURN_IF_ERROR(check_token("stop_ids", token, vocab));
  if (request.bad_words.size() > kMaxBadWords) return invalid_argument("bad_words has too many entries");
  for (const std::vector<std::int32_t>& word : request.bad_words) {
    if (word.empty()) return invalid_argument("bad_words holds an empty word");
    for (const std::int32_t token : word) LANNER_RETURN_IF_ERROR(check_token("bad_words", token, vocab));
  }
  return check_grammar(request);
}

}  // namespace lanner
