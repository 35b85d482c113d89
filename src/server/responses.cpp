// POST /v1/responses: OpenAI's newer protocol, without anything that is stored.

#include <fmt/format.h>

#include <limits>
#include <utility>

#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/openai_answer.h"

namespace lanner::server {
namespace {

struct ResponseOptions {
  const Pipeline* pipeline = nullptr;  // spells tokens
  Json echo;                           // the members of the answer that repeat what was asked
  int logprobs = -1;
};

Json response_usage(const TokenCounts& counts) {
  return {{"input_tokens", counts.prompt},
          {"input_tokens_details", {{"cached_tokens", counts.cached}, {"cache_write_tokens", 0}}},
          {"output_tokens", counts.generated},
          {"output_tokens_details", {{"reasoning_tokens", 0}}},
          {"total_tokens", counts.prompt + counts.generated}};
}

class ResponseFormat final : public AnswerFormat {
 public:
  explicit ResponseFormat(ResponseOptions options)
      : options_(std::move(options)),
        id_(random_id("resp_")),
        message_id_(random_id("msg_")),
        created_(unix_seconds()),
        delta_tail_(fmt::format(R"("item_id":{},"output_index":0,"content_index":0,)", json_string(message_id_))) {}

  void begin(std::size_t /*choices*/, std::string& out) override {
    const Json response = response_json("in_progress", Json::array(), Json());
    put("response.created", {{"response", response}}, out);
    put("response.in_progress", {{"response", response}}, out);
    put("response.output_item.added", {{"output_index", 0}, {"item", message_json("in_progress", Json::array())}}, out);
    Json event = place();
    event["part"] = part_json("", Json::array());
    put("response.content_part.added", event, out);
  }

  void piece(std::size_t /*choice*/, const Chunk& chunk, std::string& out) override {
    if (chunk.text.empty() && chunk.logprobs.empty()) return;
    text_ += chunk.text;
    const std::string told = to_text(logprobs_json(chunk.logprobs));
    put_named_event(
        "response.output_text.delta",
        fmt::format(R"({{"type":"response.output_text.delta",{}"delta":{},"logprobs":{},"sequence_number":{}}})",
                    delta_tail_, json_string(chunk.text), told, sequence_++),
        out);
  }

  void end(const AnswerSoFar& answer, std::string& out) override {
    const FinishReason reason = answer.choices.front().reason;
    Json text_done = place();
    text_done["text"] = text_;
    text_done["logprobs"] = Json::array();
    put("response.output_text.done", text_done, out);
    const Json part = part_json(text_, Json::array());
    Json part_done = place();
    part_done["part"] = part;
    put("response.content_part.done", part_done, out);
    const Json item = message_json(item_status(reason), Json::array({part}));
    put("response.output_item.done", {{"output_index", 0}, {"item", item}}, out);
    const Json response = ended_json(reason, item, answer.counts);
    put(reason == FinishReason::kStop ? "response.completed" : "response.incomplete", {{"response", response}}, out);
  }

  void fail(const Refusal& refusal, std::string& out) override {
    Json response = response_json("failed", Json::array(), Json());
    response["error"] = {{"code", refusal.status == 429 ? "rate_limit_exceeded" : "server_error"},
                         {"message", refusal.message}};
    put("response.failed", {{"response", std::move(response)}}, out);
  }

  HttpReply whole(const AnswerSoFar& answer) override {
    const ChoiceSoFar& choice = answer.choices.front();
    const Json part = part_json(choice.text, logprobs_json(choice.logprobs));
    const Json item = message_json(item_status(choice.reason), Json::array({part}));
    return json_reply(ended_json(choice.reason, item, answer.counts));
  }

 private:
  static const char* item_status(FinishReason reason) {
    return reason == FinishReason::kStop ? "completed" : "incomplete";
  }

  Json place() const { return {{"item_id", message_id_}, {"output_index", 0}, {"content_index", 0}}; }

  void put(std::string_view name, const Json& event, std::string& out) {
    Json all{{"type", name}};
    all.update(event);
    all["sequence_number"] = sequence_++;
    put_named_event(name, to_text(all), out);
  }

  Json part_json(const std::string& text, Json logprobs) const {
    return {{"type", "output_text"}, {"text", text}, {"annotations", Json::array()}, {"logprobs", std::move(logprobs)}};
  }

  Json message_json(const char* status, Json content) const {
    return {{"id", message_id_},
            {"type", "message"},
            {"status", status},
            {"role", "assistant"},
            {"content", std::move(content)}};
  }

  Json response_json(const char* status, Json output, Json usage) const {
    Json json{{"id", id_},        {"object", "response"}, {"created_at", created_},
              {"status", status}, {"error", nullptr},     {"incomplete_details", nullptr}};
    json.update(options_.echo);
    json["output"] = std::move(output);
    json["usage"] = std::move(usage);
    return json;
  }

  Json ended_json(FinishReason reason, const Json& item, const TokenCounts& counts) const {
    Json json = response_json(item_status(reason), Json::array({item}), response_usage(counts));
    if (reason == FinishReason::kStop) {
      json["completed_at"] = unix_seconds();
    } else {
      json["incomplete_details"] = {{"reason", reason == FinishReason::kLength ? "max_output_tokens" : "aborted"}};
    }
    return json;
  }

  Json logprobs_json(const std::vector<TokenLogprobs>& tokens) const {
    return options_.logprobs < 0 ? Json::array() : token_logprobs_json(*options_.pipeline, tokens);
  }

  const ResponseOptions options_;
  const std::string id_;
  const std::string message_id_;
  const std::int64_t created_;
  const std::string delta_tail_;
  std::int64_t sequence_ = 0;
  std::string text_;  // of a stream, whose end repeats it; logprobs come with the deltas alone
};

std::optional<Refusal> read_item(const Json& item, const std::string& where, Message& message) {
  if (const Json* type = find(item, "type"); type != nullptr && *type != "message") {
    return not_available(where + ".type", "only messages are available in this version");
  }
  const Json* role = find(item, "role");
  if (role != nullptr && (*role == "user" || *role == "assistant" || *role == "system")) {
    message.role = role->get<std::string>();
  } else if (role != nullptr && *role == "developer") {
    message.role = "system";
  } else {
    return bad_field(where + ".role", "must be user, assistant, system or developer");
  }
  return read_content(find(item, "content"), where + ".content", {"input_text", "output_text", "text"},
                      message.content);
}

std::optional<Refusal> read_input(const Json& body, GenerationRequest& request) {
  const auto instructions = get_or<std::string>(body, "instructions", "");
  if (!instructions.empty()) request.messages.push_back({"system", instructions});
  const Json& input = *find(body, "input");
  if (input.is_string()) {
    request.messages.push_back({"user", input.get<std::string>()});
  } else {
    for (std::size_t i = 0; i < input.size(); ++i) {
      Message message;
      if (auto refusal = read_item(input[i], fmt::format("input[{}]", i), message)) return refusal;
      request.messages.push_back(std::move(message));
    }
  }
  Json variables = body;
  if (const Json* reasoning = find(body, "reasoning")) {
    for (const auto& [name, value] : reasoning->items()) {
      const bool effort = name == "effort" && (value.is_null() || value.is_string());
      if (!effort && !value.is_null()) {
        return not_available("reasoning." + name.substr(0, 100), "only the effort is taken, as a string");
      }
      if (effort) variables["reasoning_effort"] = value;
    }
  }
  return read_template_variables(variables, request.chat_template_kwargs);
}

std::optional<Refusal> check_stream_options(const Json& body) {
  const Json* options = find(body, "stream_options");
  if (options == nullptr) return std::nullopt;
  if (!get_or(body, "stream", false)) return bad_field("stream_options", "only together with \"stream\": true");
  for (const auto& [name, value] : options->items()) {
    if (name != "include_obfuscation" || !(value.is_null() || value == false)) {
      return not_available("stream_options." + name.substr(0, 100), "not available in this version");
    }
  }
  return std::nullopt;
}

/// The members of an answer that repeat the request, and those that always say the same.
Json echo_of(const Json& body, const std::string& model) {
  const auto given = [&](const char* name) {
    const Json* value = find(body, name);
    return value == nullptr ? Json() : *value;
  };
  const auto given_or = [&](const char* name, const Json& otherwise) {
    const Json* value = find(body, name);
    return value == nullptr ? otherwise : *value;
  };
  Json reasoning{{"effort", nullptr}, {"summary", nullptr}};
  reasoning.update(given_or("reasoning", Json::object()));
  return {{"instructions", given("instructions")},
          {"max_output_tokens", given("max_output_tokens")},
          {"model", model},
          {"parallel_tool_calls", given_or("parallel_tool_calls", true)},
          {"previous_response_id", nullptr},
          {"reasoning", std::move(reasoning)},
          {"background", false},
          {"store", false},
          {"temperature", given("temperature")},
          {"text", {{"format", {{"type", "text"}}}}},
          {"tool_choice", given_or("tool_choice", "auto")},
          {"tools", Json::array()},
          {"top_logprobs", given_or("top_logprobs", 0)},
          {"top_p", given("top_p")},
          {"truncation", "disabled"},
          {"service_tier", "default"},
          {"metadata", given_or("metadata", Json::object())},
          {"user", given("user")}};
}

}  // namespace

HttpReply responses(Context& context, const Call& call) {
  const Json& body = call.body;
  if (const auto refusal = check_model(body, context.options.model_name)) return to_reply(*refusal);
  AnswerPlan plan;
  GenerationRequest& request = plan.requests.emplace_back();
  if (const auto refusal = read_input(body, request)) return to_reply(*refusal);
  if (const auto refusal = check_stream_options(body)) return to_reply(*refusal);

  ResponseOptions options{.pipeline = &context.pipeline, .echo = echo_of(body, context.options.model_name)};
  const Json* include = find(body, "include");
  const bool logprobs = include != nullptr && *include == Json::array({"message.output_text.logprobs"});
  const int others = get_or(body, "top_logprobs", 0);
  if (logprobs || others > 0) options.logprobs = others;
  request.config = generation_config(
      body, get_or<std::int64_t>(body, "max_output_tokens", std::numeric_limits<std::int32_t>::max()));
  request.config.logprobs = options.logprobs;
  plan.stream = get_or(body, "stream", false);
  plan.format = std::make_unique<ResponseFormat>(std::move(options));
  return answer_with(context, std::move(plan));
}

}  // namespace lanner::server
