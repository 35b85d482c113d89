// POST /generate: a prompt as it is, without the chat template.

#include <utility>

#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/openai_answer.h"

namespace lanner::server {
namespace {

constexpr std::int64_t kDefaultNewTokens = 128;

class GenerateFormat final : public AnswerFormat {
 public:
  explicit GenerateFormat(bool logprobs) : logprobs_(logprobs) {}

  void begin(std::size_t /*choices*/, std::string& /*out*/) override {}

  void piece(std::size_t /*choice*/, const Chunk& chunk, std::string& out) override {
    generated_ += static_cast<std::int64_t>(chunk.token_ids.size());
    const TokenCounts counts{.generated = generated_};
    put_event(to_text(answer_json(chunk.text, chunk.token_ids, chunk.logprobs, counts, nullptr)), out);
  }

  void end(const AnswerSoFar& answer, std::string& out) override {
    const Json reason{{"type", reason_name(answer.choices.front().reason)}};
    put_event(to_text(answer_json("", {}, {}, answer.counts, reason)), out);
    put_done(out);
  }

  void fail(const Refusal& refusal, std::string& out) override { put_failure(refusal, out); }

  HttpReply whole(const AnswerSoFar& answer) override {
    const ChoiceSoFar& choice = answer.choices.front();
    const Json reason{{"type", reason_name(choice.reason)}};
    return json_reply(answer_json(choice.text, choice.token_ids, choice.logprobs, answer.counts, reason));
  }

 private:
  Json answer_json(const std::string& text, const std::vector<std::int32_t>& ids,
                   const std::vector<TokenLogprobs>& logprobs, const TokenCounts& counts, Json reason) const {
    Json meta{{"prompt_tokens", counts.prompt},
              {"completion_tokens", counts.generated},
              {"finish_reason", std::move(reason)}};
    if (logprobs_) {
      meta["output_token_logprobs"] = Json::array();
      for (const TokenLogprobs& token : logprobs) {
        meta["output_token_logprobs"].push_back(Json::array({finite_logprob(token.logprob), token.token}));
      }
    }
    return {{"text", text}, {"output_ids", ids}, {"meta_info", std::move(meta)}};
  }

  const bool logprobs_;
  std::int64_t generated_ = 0;
};

}  // namespace

HttpReply generate(Context& context, const Call& call) {
  const Json& body = call.body;
  const Json* text = find(body, "prompt");
  const Json* ids = find(body, "input_ids");
  if ((text == nullptr) == (ids == nullptr)) return to_reply(bad_field("prompt", "give this or input_ids"));
  const bool logprobs = get_or(body, "return_logprob", false);
  AnswerPlan plan;
  plan.stream = get_or(body, "stream", false);
  plan.requests = read_prompts(text != nullptr ? *text : *ids);
  GenerationConfig& config = plan.requests.front().config;
  config = generation_config(body, get_or<std::int64_t>(body, "max_tokens", kDefaultNewTokens));
  config.logprobs = logprobs ? 0 : -1;
  plan.format = std::make_unique<GenerateFormat>(logprobs);
  return answer_with(context, std::move(plan));
}

}  // namespace lanner::server
