// POST /v1/encode, /tokenize and /detokenize: the tokenizer alone.

#include <utility>

#include "server/endpoints.h"
#include "server/generation_request.h"

namespace lanner::server {

HttpReply encode(Context& context, const Call& call) {
  const Json& body = call.body;
  const bool preprocess = get_or(body, "do_preprocess", false);
  const bool add_bos = get_or(body, "add_bos", true);
  const auto ids_of = [&](const Json& text) {
    if (!preprocess) return context.pipeline.encode(text.get_ref<const std::string&>(), add_bos);
    GenerationRequest request;
    request.messages = {{"user", text.get<std::string>()}};
    return context.pipeline.prompt_tokens(request);
  };
  const Json& input = *find(body, "input");
  for (const Json& text : input.is_string() ? Json::array({input}) : input) {
    if (const auto refusal = check_text_size(text.get_ref<const std::string&>())) return to_reply(*refusal);
  }
  if (input.is_string()) {
    const auto ids = ids_of(input);
    if (!ids.ok()) return to_reply(refusal_of(ids.status()));
    return json_reply({{"input_ids", *ids}, {"length", ids->size()}});
  }
  Json lists = Json::array();
  Json lengths = Json::array();
  for (const Json& text : input) {
    const auto ids = ids_of(text);
    if (!ids.ok()) return to_reply(refusal_of(ids.status()));
    lists.push_back(*ids);
    lengths.push_back(ids->size());
  }
  return json_reply({{"input_ids", std::move(lists)}, {"length", std::move(lengths)}});
}

HttpReply tokenize(Context& context, const Call& call) {
  const Json& body = call.body;
  if (const auto refusal = check_model(body, context.options.model_name)) return to_reply(*refusal);
  const Json* prompt = find(body, "prompt");
  const Json* messages = find(body, "messages");
  if ((prompt == nullptr) == (messages == nullptr)) return to_reply(bad_field("prompt", "give this or messages"));
  Result<std::vector<std::int32_t>> ids = std::vector<std::int32_t>();
  if (prompt != nullptr) {
    if (const auto refusal = check_text_size(prompt->get_ref<const std::string&>())) return to_reply(*refusal);
    ids = context.pipeline.encode(prompt->get_ref<const std::string&>(), get_or(body, "add_special_tokens", true));
  } else {
    GenerationRequest request;
    if (const auto refusal = read_messages(body, "messages", request.messages)) return to_reply(*refusal);
    ids = prompt_ids(context.pipeline, request);
  }
  if (!ids.ok()) return to_reply(refusal_of(ids.status()));
  return json_reply(
      {{"tokens", *ids}, {"count", ids->size()}, {"max_model_len", context.pipeline.engine().session_len()}});
}

HttpReply detokenize(Context& context, const Call& call) {
  const Json& body = call.body;
  if (const auto refusal = check_model(body, context.options.model_name)) return to_reply(*refusal);
  const auto ids = find(body, "tokens")->get<std::vector<std::int32_t>>();
  const auto text = context.pipeline.decode(ids, get_or(body, "skip_special_tokens", false));
  if (!text.ok()) return to_reply(refusal_of(text.status()));
  return json_reply({{"prompt", *text}, {"text", *text}});
}

}  // namespace lanner::server
