// POST /v1/chat/completions

#include <limits>
#include <utility>

#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/openai_answer.h"

namespace lanner::server {
namespace {

Json token_json(const Pipeline& pipeline, std::int32_t token, float logprob) {
  const std::string bytes = pipeline.token_bytes(token);
  Json list = Json::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return {{"token", lossy_text(bytes)}, {"logprob", finite_logprob(logprob)}, {"bytes", std::move(list)}};
}

Json logprobs_json(const Pipeline& pipeline, const std::vector<TokenLogprobs>& tokens) {
  Json content = Json::array();
  for (const TokenLogprobs& token : tokens) {
    Json entry = token_json(pipeline, token.token, token.logprob);
    entry["top_logprobs"] = Json::array();
    for (const TokenLogprob& other : token.top) {
      entry["top_logprobs"].push_back(token_json(pipeline, other.token, other.logprob));
    }
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

class ChatFormat final : public OpenAiFormat {
 public:
  explicit ChatFormat(OpenAiAnswerOptions options)
      : OpenAiFormat(std::move(options), "chat.completion.chunk", "chat.completion") {}

  void begin(std::size_t choices, std::string& out) override {
    for (std::size_t i = 0; i < choices; ++i)
      put_choice(i, R"("delta":{"role":"assistant","content":""})", "null", "null", out);
  }

  void piece(std::size_t choice, const Chunk& chunk, std::string& out) override {
    if (chunk.text.empty() && chunk.logprobs.empty()) return;
    const std::string logprobs =
        chunk.logprobs.empty() ? "null" : to_text(logprobs_json(*options().pipeline, chunk.logprobs));
    put_choice(choice, R"("delta":{"content":)" + json_string(chunk.text) + "}", logprobs, "null", out);
  }

 private:
  std::string_view no_addition() const override { return R"("delta":{})"; }

  Json choice_json(std::size_t index, const ChoiceSoFar& choice) override {
    const Json message{{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
    const Json logprobs = options().logprobs < 0 ? Json() : logprobs_json(*options().pipeline, choice.logprobs);
    return {
        {"index", index}, {"message", message}, {"logprobs", logprobs}, {"finish_reason", reason_name(choice.reason)}};
  }
};

}  // namespace

HttpReply chat_completions(Context& context, const Call& call) {
  const Json& body = call.body;
  if (const auto refusal = check_model(body, context.options.model_name)) return to_reply(*refusal);
  GenerationRequest request;
  if (find(body, "messages")->is_string()) {
    request.prompt = find(body, "messages")->get<std::string>();
  } else if (const auto refusal = read_messages(body, "messages", request.messages)) {
    return to_reply(*refusal);
  }
  if (const auto refusal = read_template_variables(body, request.chat_template_kwargs)) return to_reply(*refusal);

  OpenAiAnswerOptions options{
      .pipeline = &context.pipeline, .id = random_id("chatcmpl-"), .model = context.options.model_name};
  if (const auto refusal = read_stream_options(body, options.include_usage)) return to_reply(*refusal);
  if (get_or(body, "logprobs", false)) options.logprobs = get_or(body, "top_logprobs", 0);
  if (options.logprobs < 0 && get_or(body, "top_logprobs", 0) > 0) {
    return to_reply(bad_field("top_logprobs", "only together with \"logprobs\": true"));
  }
  const auto most = get<std::int64_t>(body, "max_completion_tokens");
  request.config = generation_config(
      body, most ? *most : get_or<std::int64_t>(body, "max_tokens", std::numeric_limits<std::int32_t>::max()));
  request.config.logprobs = options.logprobs;

  AnswerPlan plan;
  plan.stream = get_or(body, "stream", false);
  plan.requests.push_back(std::move(request));
  plan.format = std::make_unique<ChatFormat>(std::move(options));
  return answer_with(context, std::move(plan));
}

}  // namespace lanner::server
