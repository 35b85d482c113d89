#include "server/response_answer.h"

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/endpoints.h"
#include "server/generation_request.h"
#include "server/openai_answer.h"

namespace lanner::server {
namespace {

Json response_usage(const TokenCounts& counts) {
  return {{"input_tokens", counts.prompt},
          {"input_tokens_details", {{"cached_tokens", counts.cached}, {"cache_write_tokens", 0}}},
          {"output_tokens", counts.generated},
          {"output_tokens_details", {{"reasoning_tokens", 0}}},
          {"total_tokens", counts.prompt + counts.generated}};
}

const char* item_status(FinishReason reason) { return reason == FinishReason::kStop ? "completed" : "incomplete"; }

Json text_part(const std::string& text, Json logprobs) {
  return {{"type", "output_text"}, {"text", text}, {"annotations", Json::array()}, {"logprobs", std::move(logprobs)}};
}
Json reasoning_part(const std::string& text) { return {{"type", "reasoning_text"}, {"text", text}}; }

Json message_item(const std::string& id, const char* status, Json content) {
  return {{"id", id}, {"type", "message"}, {"status", status}, {"role", "assistant"}, {"content", std::move(content)}};
}
Json reasoning_item(const std::string& id, const char* status, Json content) {
  return {{"id", id},
          {"type", "reasoning"},
          {"summary", Json::array()},
          {"content", std::move(content)},
          {"status", status}};
}
Json call_item(const ToolCall& call) {
  return {{"id", random_id("fc_")}, {"type", "function_call"},     {"call_id", random_id("call_")},
          {"name", call.name},      {"arguments", call.arguments}, {"status", "completed"}};
}

class ResponseFormat final : public AnswerFormat {
 public:
  explicit ResponseFormat(ResponseOptions options)
      : options_(std::move(options)), id_(random_id("resp_")), created_(unix_seconds()) {
    if (options_.reading.has_parts()) parser_.emplace(options_.reading);
  }

  void begin(std::size_t /*choices*/, std::string& out) override {
    const Json response = response_json("in_progress", Json::array(), Json());
    put("response.created", {{"response", response}}, out);
    put("response.in_progress", {{"response", response}}, out);
  }

  void piece(std::size_t /*choice*/, const Chunk& chunk, std::string& out) override {
    logprobs_.insert(logprobs_.end(), chunk.logprobs.begin(), chunk.logprobs.end());
    if (!parser_) {
      if (!chunk.text.empty() || !chunk.logprobs.empty()) put_text(chunk.text, out);
      return;
    }
    AnswerParts parts;
    parser_->push(chunk.text, parts);
    put_parts(parts, out);
  }

  void end(const AnswerSoFar& answer, std::string& out) override {
    if (parser_) {
      AnswerParts parts;
      parser_->finish(parts);
      put_parts(parts, out);
    }
    const FinishReason reason = answer.choices.front().reason;
    if (items_.empty() && open_ == Item::kNone) open(Item::kMessage, out);
    close(item_status(reason), out);
    const Json response = ended_json(reason, items_, answer.counts);
    put(reason == FinishReason::kStop ? "response.completed" : "response.incomplete", {{"response", response}}, out);
  }

  void fail(const Refusal& refusal, std::string& out) override {
    Json response = response_json("failed", Json::array(), Json());
    response["error"] = {{"code", refusal.status == 429 ? "rate_limit_exceeded" : "server_error"},
                         {"message", refusal.message}};
    put("response.failed", {{"response", response}}, out);
  }

  HttpReply whole(const AnswerSoFar& answer) override {
    const ChoiceSoFar& choice = answer.choices.front();
    const AnswerParts parts = parts_of(options_.reading, choice.text);
    Json items = Json::array();
    if (!parts.reasoning.empty()) {
      items.push_back(reasoning_item(random_id("rs_"), "completed", Json::array({reasoning_part(parts.reasoning)})));
    }
    if (!parts.content.empty() || (items.empty() && parts.calls.empty())) {
      const Json part = text_part(parts.content, logprobs_json(choice.logprobs));
      items.push_back(message_item(random_id("msg_"), "completed", Json::array({part})));
    }
    for (const ToolCall& call : parts.calls) items.push_back(call_item(call));
    if (parts.calls.empty()) items.back()["status"] = item_status(choice.reason);
    return json_reply(ended_json(choice.reason, std::move(items), answer.counts));
  }

 private:
  enum class Item { kNone, kMessage, kReasoning };

  void put(std::string_view name, const Json& event, std::string& out) {
    Json all{{"type", name}};
    all.update(event);
    all["sequence_number"] = sequence_++;
    put_named_event(name, to_text(all), out);
  }

  // --- the item that is open, a message or thoughts, which has one part ---------------------------------------------

  Json place() const { return {{"item_id", item_id_}, {"output_index", items_.size()}, {"content_index", 0}}; }
  Json part(const std::string& text) const {
    return open_ == Item::kMessage ? text_part(text, Json::array()) : reasoning_part(text);
  }
  Json item(const char* status, Json content) const {
    return open_ == Item::kMessage ? message_item(item_id_, status, std::move(content))
                                   : reasoning_item(item_id_, status, std::move(content));
  }

  void open(Item kind, std::string& out) {
    if (open_ == kind) return;
    close("completed", out);
    open_ = kind;
    item_id_ = random_id(kind == Item::kMessage ? "msg_" : "rs_");
    text_.clear();
    put("response.output_item.added", {{"output_index", items_.size()}, {"item", item("in_progress", Json::array())}},
        out);
    Json event = place();
    event["part"] = part("");
    put("response.content_part.added", event, out);
    delta_tail_ =
        fmt::format(R"("item_id":{},"output_index":{},"content_index":0,)", json_string(item_id_), items_.size());
  }

  void close(const char* status, std::string& out) {
    if (open_ == Item::kNone) return;
    Json text_done = place();
    text_done["text"] = text_;
    if (open_ == Item::kMessage) text_done["logprobs"] = Json::array();
    put(open_ == Item::kMessage ? "response.output_text.done" : "response.reasoning_text.done", text_done, out);
    Json part_done = place();
    part_done["part"] = part(text_);
    put("response.content_part.done", part_done, out);
    Json done = item(status, Json::array({part(text_)}));
    put("response.output_item.done", {{"output_index", items_.size()}, {"item", done}}, out);
    items_.push_back(std::move(done));
    open_ = Item::kNone;
  }

  /// `more`: members besides those that say where.
  void put_delta(std::string_view name, std::string_view text, std::string_view more, std::string& out) {
    text_ += text;
    put_named_event(name,
                    fmt::format(R"({{"type":"{}",{}"delta":{},{}"sequence_number":{}}})", name, delta_tail_,
                                json_string(text), more, sequence_++),
                    out);
  }

  /// With what the model thought of all tokens since the last text.
  void put_text(std::string_view text, std::string& out) {
    open(Item::kMessage, out);
    const std::string told = R"("logprobs":)" + to_text(logprobs_json(std::exchange(logprobs_, {}))) + ",";
    put_delta("response.output_text.delta", text, told, out);
  }

  void put_parts(const AnswerParts& parts, std::string& out) {
    if (!parts.reasoning.empty()) {
      open(Item::kReasoning, out);
      put_delta("response.reasoning_text.delta", parts.reasoning, "", out);
    }
    if (!parts.content.empty()) put_text(parts.content, out);
    for (const ToolCall& call : parts.calls) put_call(call, out);
  }

  void put_call(const ToolCall& call, std::string& out) {
    close("completed", out);
    const Json done = call_item(call);
    Json begun = done;
    begun["arguments"] = "";
    begun["status"] = "in_progress";
    const Json place{{"item_id", done["id"]}, {"output_index", items_.size()}};
    put("response.output_item.added", {{"output_index", items_.size()}, {"item", begun}}, out);
    Json delta = place;
    delta["delta"] = call.arguments;
    put("response.function_call_arguments.delta", delta, out);
    Json all = place;
    all["name"] = call.name;
    all["arguments"] = call.arguments;
    put("response.function_call_arguments.done", all, out);
    put("response.output_item.done", {{"output_index", items_.size()}, {"item", done}}, out);
    items_.push_back(done);
  }

  // --- the response -------------------------------------------------------------------------------------------------

  Json response_json(const char* status, Json output, Json usage) const {
    Json json{{"id", id_},        {"object", "response"}, {"created_at", created_},
              {"status", status}, {"error", nullptr},     {"incomplete_details", nullptr}};
    json.update(options_.echo);
    json["output"] = std::move(output);
    json["usage"] = std::move(usage);
    return json;
  }

  Json ended_json(FinishReason reason, Json items, const TokenCounts& counts) const {
    Json json = response_json(item_status(reason), std::move(items), response_usage(counts));
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
  const std::int64_t created_;
  // Of a stream:
  std::optional<AnswerParser> parser_;  // none: all is text
  std::int64_t sequence_ = 0;
  Json items_ = Json::array();  // that have come to their end
  Item open_ = Item::kNone;
  std::string item_id_;
  std::string delta_tail_;
  std::string text_;                     // of the open item, whose end repeats it; logprobs come with the deltas alone
  std::vector<TokenLogprobs> logprobs_;  // not told yet
};

}  // namespace

std::unique_ptr<AnswerFormat> make_response_format(ResponseOptions options) {
  return std::make_unique<ResponseFormat>(std::move(options));
}

}  // namespace lanner::server
