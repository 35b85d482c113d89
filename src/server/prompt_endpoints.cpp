// POST /v1/embeddings, /pooling and /get_ppl: what a model makes of prompts, without generating.

#include <atomic>
#include <bit>
#include <memory>
#include <utility>

#include "engine/prompt_outputs.h"
#include "engine/run_requests.h"
#include "net/base64.h"
#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/openai_answer.h"

namespace lanner::server {
namespace {

/// The inputs as token ids.
Result<std::vector<std::vector<std::int32_t>>> tokens_of(Pipeline& pipeline, const Json& input) {
  std::vector<std::vector<std::int32_t>> prompts;
  for (GenerationRequest& request : read_prompts(input)) {
    if (request.prompt && request.prompt->empty()) return invalid_argument("input: a text is empty");
    LANNER_ASSIGN_OR_RETURN(auto ids, prompt_ids(pipeline, request));
    prompts.push_back(std::move(ids));
  }
  return prompts;
}

/// What is computed for a request, until its client has left or all answers are to end.
class PromptRun {
 public:
  PromptRun(Context& context, const HttpRequest& request) : context_(context), left_(request.client_left) {
    context_.running.add(this, [stop = stop_] { stop->store(true); });
  }
  ~PromptRun() { context_.running.remove(this); }
  PromptRun(const PromptRun&) = delete;
  PromptRun& operator=(const PromptRun&) = delete;

  Unwanted unwanted() const {
    return [left = left_, stop = stop_] { return stop->load() || (left != nullptr && left->load()); };
  }

 private:
  Context& context_;
  const std::shared_ptr<const std::atomic<bool>> left_;
  const std::shared_ptr<std::atomic<bool>> stop_ = std::make_shared<std::atomic<bool>>(false);
};

Json prompt_usage(const std::vector<std::vector<std::int32_t>>& prompts) {
  std::size_t tokens = 0;
  for (const auto& prompt : prompts) tokens += prompt.size();
  return {{"prompt_tokens", tokens}, {"total_tokens", tokens}};
}

Json embedding_json(const std::vector<float>& values, bool as_base64) {
  if (!as_base64) return values;
  static_assert(std::endian::native == std::endian::little);
  return net::base64({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
}

/// The answer with the vectors of the request's inputs: whole(data, usage), whose data are entry(index, vector).
template <typename Entry, typename Whole>
HttpReply vectors_reply(Context& context, const Call& call, Pooling how, bool normalize, const Entry& entry,
                        const Whole& whole) {
  const Json& body = call.body;
  if (const auto refusal = check_model(body, context.options.model_name)) return to_reply(*refusal);
  const auto prompts = tokens_of(context.pipeline, *find(body, "input"));
  if (!prompts.ok()) return to_reply(refusal_of(prompts.status()));
  const auto place = context.limits.enter(static_cast<std::int64_t>(prompts->size()));
  if (!place) return to_reply(turned_away(context.limits.closed()));
  const PromptRun run(context, call.request);
  const auto vectors = get_embeddings(context.pipeline.engine(), *prompts, how, normalize, run.unwanted());
  if (!vectors.ok()) return to_reply(refusal_of(vectors.status()));

  const bool as_base64 = get_or<std::string>(body, "encoding_format", "float") == "base64";
  Json data = Json::array();
  for (std::size_t i = 0; i < vectors->size(); ++i) data.push_back(entry(i, embedding_json((*vectors)[i], as_base64)));
  return json_reply(whole(std::move(data), prompt_usage(*prompts)));
}

/// What the request's field says, or else `usual`.
Pooling pooling_of(const Json& body, const char* usual) {
  return get_or<std::string>(body, "pooling", usual) == "mean" ? Pooling::kMean : Pooling::kLast;
}

}  // namespace

HttpReply embeddings(Context& context, const Call& call) {
  return vectors_reply(
      context, call, pooling_of(call.body, "mean"), /*normalize=*/true,
      [](std::size_t index, Json vector) {
        return Json{{"object", "embedding"}, {"index", index}, {"embedding", std::move(vector)}};
      },
      [&](Json data, Json usage) {
        return Json{{"object", "list"},
                    {"data", std::move(data)},
                    {"model", context.options.model_name},
                    {"usage", std::move(usage)}};
      });
}

HttpReply pooling(Context& context, const Call& call) {
  return vectors_reply(
      context, call, pooling_of(call.body, "last"), get_or(call.body, "normalize", false),
      [](std::size_t index, Json vector) {
        return Json{{"index", index}, {"object", "pooling"}, {"data", std::move(vector)}};
      },
      [&](Json data, Json usage) {
        return Json{{"id", random_id("pool-")},  {"object", "list"},
                    {"created", unix_seconds()}, {"model", context.options.model_name},
                    {"data", std::move(data)},   {"usage", std::move(usage)}};
      });
}

HttpReply get_ppl(Context& context, const Call& call) {
  if (const auto refusal = check_model(call.body, context.options.model_name)) return to_reply(*refusal);
  const auto prompts = tokens_of(context.pipeline, *find(call.body, "input"));
  if (!prompts.ok()) return to_reply(refusal_of(prompts.status()));
  if (prompts->size() != 1) return to_reply(bad_field("input", "must be one text or one list of token ids"));
  const auto place = context.limits.enter(static_cast<std::int64_t>(prompts->size()));
  if (!place) return to_reply(turned_away(context.limits.closed()));
  const PromptRun run(context, call.request);
  const auto losses = lanner::get_ppl(context.pipeline.engine(), *prompts, run.unwanted());
  if (!losses.ok()) return to_reply(refusal_of(losses.status()));
  return json_reply({{"ppl", losses->front()}});
}

}  // namespace lanner::server
