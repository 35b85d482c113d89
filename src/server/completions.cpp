// POST /v1/completions

#include <algorithm>
#include <limits>
#include <utility>

#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/openai_answer.h"
#include "server/structured_output.h"

namespace lanner::server {
namespace {

/// Characters of a text that may begin or end within one.
std::int64_t characters(std::string_view bytes) {
  return std::ranges::count_if(bytes, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; });
}

class CompletionFormat final : public OpenAiFormat {
 public:
  /// `echoes`: one a prompt, empty where none is wanted.
  CompletionFormat(OpenAiAnswerOptions options, std::vector<std::string> echoes, std::size_t n)
      : OpenAiFormat(std::move(options), "text_completion", "text_completion"),
        echoes_(std::move(echoes)),
        n_(n),
        offsets_(echoes_.size() * n) {}

  void begin(std::size_t choices, std::string& out) override {
    for (std::size_t i = 0; i < choices; ++i) {
      if (!echo(i).empty()) put_text(i, echo(i), "null", out);
    }
  }

  void piece(std::size_t choice, const Chunk& chunk, std::string& out) override {
    if (chunk.text.empty() && chunk.logprobs.empty()) return;
    const std::string logprobs = chunk.logprobs.empty() ? "null" : to_text(logprobs_json(choice, chunk.logprobs));
    put_text(choice, chunk.text, logprobs, out);
  }

 private:
  const std::string& echo(std::size_t choice) const { return echoes_[choice / n_]; }

  void put_text(std::size_t choice, std::string_view text, std::string_view logprobs, std::string& out) const {
    put_choice(choice, R"("text":)" + json_string(text), logprobs, "null", out);
  }
  std::string_view no_addition() const override { return R"("text":"")"; }

  Json choice_json(std::size_t index, const ChoiceSoFar& choice) override {
    return {{"index", index},
            {"text", echo(index) + choice.text},
            {"logprobs", options().logprobs < 0 ? Json() : logprobs_json(index, choice.logprobs)},
            {"finish_reason", reason_name(choice.reason)}};
  }

  Json logprobs_json(std::size_t choice, const std::vector<TokenLogprobs>& tokens) {
    Json names = Json::array();
    Json values = Json::array();
    Json tops = Json::array();
    Json offsets = Json::array();
    for (const TokenLogprobs& token : tokens) {
      const std::string bytes = options().pipeline->token_bytes(token.token);
      names.push_back(lossy_text(bytes));
      values.push_back(finite_logprob(token.logprob));
      offsets.push_back(offsets_[choice]);
      offsets_[choice] += characters(bytes);
      Json top = Json::object();
      for (const TokenLogprob& other : token.top) {
        top[lossy_text(options().pipeline->token_bytes(other.token))] = finite_logprob(other.logprob);
      }
      tops.push_back(std::move(top));
    }
    return {{"tokens", std::move(names)},
            {"token_logprobs", std::move(values)},
            {"top_logprobs", options().logprobs > 0 ? std::move(tops) : Json()},
            {"text_offset", std::move(offsets)}};
  }

  const std::vector<std::string> echoes_;  // (prompts)
  const std::size_t n_;
  std::vector<std::int64_t> offsets_;  // (choices) characters so far
};

}  // namespace

HttpReply completions(Context& context, const Call& call) {
  const Json& body = call.body;
  if (const auto refusal = check_model(body, context.options.model_name)) return to_reply(*refusal);
  OpenAiAnswerOptions options{
      .pipeline = &context.pipeline, .id = random_id("cmpl-"), .model = context.options.model_name};
  if (const auto refusal = read_stream_options(body, options.include_usage)) return to_reply(*refusal);
  options.logprobs = get_or(body, "logprobs", -1);
  const bool echo = get_or(body, "echo", false);
  if (echo && options.logprobs >= 0) {
    return to_reply(not_available("echo", "not available in this version together with logprobs"));
  }
  GenerationConfig config =
      generation_config(body, get_or<std::int64_t>(body, "max_tokens", std::numeric_limits<std::int32_t>::max()));
  config.logprobs = options.logprobs;

  GenerationRequest common{.config = std::move(config)};
  std::optional<GrammarSource> format;
  if (const auto refusal = read_response_format(body, format)) return to_reply(*refusal);
  if (format) {
    if (const auto refusal = set_grammar(context.pipeline, *format, "response_format", common)) {
      return to_reply(*refusal);
    }
  }

  AnswerPlan plan;
  plan.stream = get_or(body, "stream", false);
  plan.requests = read_prompts(*find(body, "prompt"));
  std::vector<std::string> echoes(plan.requests.size());
  for (std::size_t i = 0; i < plan.requests.size(); ++i) {
    GenerationRequest& request = plan.requests[i];
    request.config = common.config;
    request.grammar = common.grammar;
    if (!echo) continue;
    if (request.prompt) {
      echoes[i] = *request.prompt;
      continue;
    }
    const auto text = context.pipeline.decode(request.prompt_ids, /*skip_special_tokens=*/true);
    if (!text.ok()) return to_reply(refusal_of(text.status()));
    echoes[i] = *text;
  }
  const auto n = static_cast<std::size_t>(common.config.n);
  plan.format = std::make_unique<CompletionFormat>(std::move(options), std::move(echoes), n);
  return answer_with(context, std::move(plan));
}

}  // namespace lanner::server
