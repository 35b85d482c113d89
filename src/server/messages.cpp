// POST /v1/messages and /v1/messages/count_tokens, GET /anthropic/v1/models: Anthropic's protocol.

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/openai_answer.h"

namespace lanner::server {
namespace {

/// How the protocol calls the errors of an HTTP status.
std::string anthropic_error_type(int status) {
  if (status == 413) return "request_too_large";
  if (status == 503) return "overloaded_error";
  return status >= 500 ? "api_error" : error_type(status);
}

Json anthropic_error(int status, const std::string& message) {
  return {{"type", "error"}, {"error", {{"type", anthropic_error_type(status)}, {"message", message}}}};
}

Refusal stopped_early() { return plain_refusal(503, "the answer was stopped before its end", "aborted"); }

/// What the cache had is not among the input tokens here.
Json anthropic_usage(const TokenCounts& counts) {
  return {{"input_tokens", counts.prompt - counts.cached},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", counts.cached},
          {"output_tokens", counts.generated}};
}

class MessagesFormat final : public AnswerFormat {
 public:
  MessagesFormat(std::string model, std::vector<std::string> stops, std::int64_t prompt_tokens)
      : id_(random_id("msg_")), model_(std::move(model)), stops_(std::move(stops)), prompt_tokens_(prompt_tokens) {}

  void begin(std::size_t /*choices*/, std::string& out) override {
    const Json message = message_json(Json::array(), Json(), Json(), {.prompt = prompt_tokens_});
    put("message_start", {{"type", "message_start"}, {"message", message}}, out);
    const Json block{{"type", "text"}, {"text", ""}};
    put("content_block_start", {{"type", "content_block_start"}, {"index", 0}, {"content_block", block}}, out);
  }

  void piece(std::size_t /*choice*/, const Chunk& chunk, std::string& out) override {
    if (chunk.text.empty()) return;
    put_named_event("content_block_delta",
                    R"({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":)" +
                        json_string(chunk.text) + "}}",
                    out);
  }

  void end(const AnswerSoFar& answer, std::string& out) override {
    const ChoiceSoFar& choice = answer.choices.front();
    if (choice.reason == FinishReason::kAbort) return fail(stopped_early(), out);
    put("content_block_stop", {{"type", "content_block_stop"}, {"index", 0}}, out);
    const Json delta{{"stop_reason", stop_reason(choice)}, {"stop_sequence", stop_sequence(choice)}};
    put("message_delta", {{"type", "message_delta"}, {"delta", delta}, {"usage", anthropic_usage(answer.counts)}}, out);
    put("message_stop", {{"type", "message_stop"}}, out);
  }

  void fail(const Refusal& refusal, std::string& out) override {
    put("error", anthropic_error(refusal.status, refusal.message), out);
  }

  HttpReply whole(const AnswerSoFar& answer) override {
    const ChoiceSoFar& choice = answer.choices.front();
    if (choice.reason == FinishReason::kAbort) return refuse(stopped_early());
    const Json block{{"type", "text"}, {"text", choice.text}};
    return json_reply(message_json(Json::array({block}), stop_reason(choice), stop_sequence(choice), answer.counts));
  }

  HttpReply refuse(const Refusal& refusal) override { return in_anthropic_form(to_reply(refusal)); }

 private:
  static void put(std::string_view name, const Json& data, std::string& out) {
    put_named_event(name, to_text(data), out);
  }

  /// The chat template may have stop strings of its own, which are the end of a turn.
  bool was_asked_for(const std::string& stop) const { return std::ranges::find(stops_, stop) != stops_.end(); }
  Json stop_reason(const ChoiceSoFar& choice) const {
    if (choice.reason == FinishReason::kLength) return "max_tokens";
    return was_asked_for(choice.stop) ? "stop_sequence" : "end_turn";
  }
  Json stop_sequence(const ChoiceSoFar& choice) const {
    return was_asked_for(choice.stop) ? Json(choice.stop) : Json();
  }

  Json message_json(Json content, Json reason, Json sequence, const TokenCounts& counts) const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", model_},
            {"content", std::move(content)},
            {"stop_reason", std::move(reason)},
            {"stop_sequence", std::move(sequence)},
            {"usage", anthropic_usage(counts)}};
  }

  const std::string id_;
  const std::string model_;
  const std::vector<std::string> stops_;
  const std::int64_t prompt_tokens_;
};

/// Blocks of text and, of an assistant, thoughts.
std::optional<Refusal> read_blocks(const Json& blocks, const std::string& where, bool assistant, Message& message) {
  std::string thoughts;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Json& block = blocks[i];
    const bool thinks = assistant && block.is_object() && block.value("type", Json()) == "thinking";
    if (!thinks) {
      std::string text;
      if (auto refusal = read_text_part(block, fmt::format("{}[{}]", where, i), {"text"}, text)) return refusal;
      if (!message.content.empty()) message.content += '\n';
      message.content += text;
      continue;
    }
    const Json* thought = find(block, "thinking");
    if (thought == nullptr || !thought->is_string()) {
      return bad_field(fmt::format("{}[{}].thinking", where, i), "must be a string");
    }
    thoughts += thought->get_ref<const std::string&>();
  }
  if (!thoughts.empty()) message.more = to_text({{"reasoning_content", thoughts}});
  return std::nullopt;
}

std::optional<Refusal> read_message(const Json& json, const std::string& where, Message& message) {
  if (!json.is_object()) return bad_field(where, "must be an object");
  const Json* role = find(json, "role");
  const bool assistant = role != nullptr && *role == "assistant";
  if (!assistant && (role == nullptr || *role != "user"))
    return bad_field(where + ".role", "must be user or assistant");
  message.role = role->get<std::string>();
  for (const auto& [key, value] : json.items()) {
    if (key != "role" && key != "content") return bad_field(where + "." + key.substr(0, 100), "unknown field");
  }
  const Json* content = find(json, "content");
  if (content != nullptr && content->is_string()) {
    message.content = content->get<std::string>();
    return std::nullopt;
  }
  if (content == nullptr || !content->is_array()) {
    return bad_field(where + ".content", "must be a string or a list of blocks");
  }
  return read_blocks(*content, where + ".content", assistant, message);
}

/// What the template gets: everything but how to draw.
std::optional<Refusal> read_talk(const Json& body, GenerationRequest& request) {
  if (const Json* system = find(body, "system")) {
    Message message{.role = "system", .content = ""};
    if (auto refusal = read_content(system, "system", {"text"}, message.content)) return refusal;
    if (!message.content.empty()) request.messages.push_back(std::move(message));
  }
  const Json& list = *find(body, "messages");
  for (std::size_t i = 0; i < list.size(); ++i) {
    Message message;
    if (auto refusal = read_message(list[i], fmt::format("messages[{}]", i), message)) return refusal;
    request.messages.push_back(std::move(message));
  }
  if (auto refusal = read_template_variables(body, request.chat_template_kwargs)) return refusal;
  if (request.messages.back().role == "assistant") {  // the answer goes on from there
    Json variables = request.chat_template_kwargs.empty() ? Json::object() : Json::parse(request.chat_template_kwargs);
    variables["continue_final_message"] = true;
    variables["add_generation_prompt"] = false;
    request.chat_template_kwargs = to_text(variables);
  }
  return std::nullopt;
}

}  // namespace

HttpReply in_anthropic_form(HttpReply reply) {
  if (reply.status < 400 || reply.late != nullptr) return reply;
  const Json body = Json::parse(reply.body, nullptr, false);
  const bool known = body.is_object() && body.contains("message") && body["message"].is_string();
  reply.body = to_text(anthropic_error(reply.status, known ? body["message"].get<std::string>() : ""));
  return reply;
}

HttpReply messages(Context& context, const Call& call) {
  const Json& body = call.body;
  if (const auto refusal = check_model(body, context.options.model_name)) return to_reply(*refusal);
  GenerationRequest talk;
  if (const auto refusal = read_talk(body, talk)) return to_reply(*refusal);
  // The first event says how many there are.
  auto ids = prompt_ids(context.pipeline, talk);
  if (!ids.ok()) return to_reply(refusal_of(ids.status()));
  const auto count = static_cast<std::int64_t>(ids->size());

  AnswerPlan plan;
  plan.stream = get_or(body, "stream", false);
  GenerationRequest& request = plan.requests.emplace_back();
  request.prompt_ids = *std::move(ids);
  request.config = generation_config(body, *get<std::int64_t>(body, "max_tokens"));
  if (const Json* stops = find(body, "stop_sequences")) request.config.stop = read_stops(*stops);
  plan.format = std::make_unique<MessagesFormat>(context.options.model_name, request.config.stop, count);
  return answer_with(context, std::move(plan));
}

HttpReply count_message_tokens(Context& context, const Call& call) {
  if (const auto refusal = check_model(call.body, context.options.model_name)) return to_reply(*refusal);
  GenerationRequest talk;
  if (const auto refusal = read_talk(call.body, talk)) return to_reply(*refusal);
  const auto ids = prompt_ids(context.pipeline, talk);
  if (!ids.ok()) return to_reply(refusal_of(ids.status()));
  return json_reply({{"input_tokens", ids->size()}});
}

HttpReply list_anthropic_models(Context& context, const Call& /*call*/) {
  static const std::time_t created = std::time(nullptr);
  const std::string& name = context.options.model_name;
  const Json card{{"type", "model"},
                  {"id", name},
                  {"display_name", name},
                  {"created_at", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(created))}};
  return json_reply({{"data", Json::array({card})}, {"has_more", false}, {"first_id", name}, {"last_id", name}});
}

}  // namespace lanner::server
