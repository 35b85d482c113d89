#include "server/generation_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <limits>

#include "core/random_bits.h"

#include "server/chat_tools.h"

namespace lanner::server {
namespace {

constexpr std::array<std::string_view, 5> kRoles{"system", "developer", "user", "assistant", "tool"};

std::optional<float> get_float(const Json& body, std::string_view name) { return get<float>(body, name); }

std::int32_t clamped(std::int64_t value) {
  return static_cast<std::int32_t>(std::clamp<std::int64_t>(value, 0, std::numeric_limits<std::int32_t>::max()));
}

/// Templates write arguments as JSON, so that they must not be text when they get there.
Json template_calls(const Json& calls) {
  Json list = Json::array();
  for (const Json& call : calls) list.push_back(call.is_object() ? template_call(call) : call);
  return list;
}

std::optional<Refusal> read_message(const Json& json, const std::string& where, Message& message) {
  const Json* role = find(json, "role");
  if (role == nullptr || !role->is_string() || std::ranges::find(kRoles, role->get<std::string>()) == kRoles.end()) {
    return bad_field(where + ".role", "must be system, developer, user, assistant or tool");
  }
  message.role = *role == "developer" ? "system" : role->get<std::string>();
  const Json* content = find(json, "content");
  if (content != nullptr) {
    if (auto refusal = read_content(content, where + ".content", {"text"}, message.content)) return refusal;
  } else if (find(json, "tool_calls") == nullptr) {
    return bad_field(where + ".content", "this field is required");
  }
  Json more = Json::object();
  // The vector below the map, as in parse_json(): the keys differ, and need not be compared once more.
  auto& members = more.get_ref<Json::object_t&>();
  for (const auto& [key, value] : json.items()) {
    if (key == "role" || key == "content" || value.is_null()) continue;
    members.push_back({key, key == "tool_calls" && value.is_array() ? template_calls(value) : value});
  }
  if (!more.empty()) message.more = to_text(more);
  return std::nullopt;
}

}  // namespace

GenerationConfig generation_config(const Json& body, std::int64_t max_new_tokens) {
  GenerationConfig config;
  config.max_new_tokens = clamped(max_new_tokens);
  config.min_new_tokens = clamped(get_or<std::int64_t>(body, "min_new_tokens", 0));
  config.n = get_or<std::int32_t>(body, "n", 1);
  config.temperature = get_float(body, "temperature");
  config.top_p = get_float(body, "top_p");
  if (const auto top_k = get<std::int32_t>(body, "top_k")) config.top_k = std::max(*top_k, 0);
  config.min_p = get_float(body, "min_p");
  config.repetition_penalty = get_float(body, "repetition_penalty");
  config.presence_penalty = get_float(body, "presence_penalty").value_or(0.0F);
  config.frequency_penalty = get_float(body, "frequency_penalty").value_or(0.0F);
  if (const auto seed = get<std::int64_t>(body, "seed")) config.seed = static_cast<std::uint64_t>(*seed);
  config.ignore_eos = get_or(body, "ignore_eos", false);
  config.skip_special_tokens = get_or(body, "skip_special_tokens", true);
  config.include_stop_str_in_output = get_or(body, "include_stop_str_in_output", false);
  if (const Json* biases = find(body, "logit_bias")) {
    for (const auto& [key, bias] : biases->items()) {
      std::int32_t token = 0;
      std::from_chars(key.data(), key.data() + key.size(), token);  // which check_fields() has read already
      config.logit_bias.emplace_back(token, bias.get<float>());
    }
  }
  if (const Json* stop = find(body, "stop")) config.stop = read_stops(*stop);
  config.stop_ids = get_or<std::vector<std::int32_t>>(body, "stop_token_ids", {});
  return config;
}

std::optional<Refusal> read_stream_options(const Json& body, bool& include_usage) {
  const Json* options = find(body, "stream_options");
  if (options == nullptr) return std::nullopt;
  if (!get_or(body, "stream", false)) return bad_field("stream_options", "only together with \"stream\": true");
  for (const auto& [name, value] : options->items()) {
    const std::string field = "stream_options." + name.substr(0, 100);
    if (value.is_null()) continue;
    if (!value.is_boolean()) return bad_field(field, "must be true or false");
    if (name == "include_usage") {
      include_usage = value.get<bool>();
    } else if (name != "include_obfuscation" || value.get<bool>()) {
      return bad_field(field, "unknown field");
    }
  }
  return std::nullopt;
}

std::optional<Refusal> read_messages(const Json& body, std::string_view name, std::vector<Message>& messages) {
  const Json& list = *find(body, name);
  messages.resize(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (auto refusal = read_message(list[i], fmt::format("{}[{}]", name, i), messages[i])) return refusal;
  }
  return std::nullopt;
}

std::vector<std::string> read_stops(const Json& stops) {
  if (stops.is_string()) return {stops.get<std::string>()};
  return stops.get<std::vector<std::string>>();
}

std::optional<Refusal> read_string(const Json& object, const char* name, const std::string& where, std::string& text) {
  const Json* value = find(object, name);
  if (value == nullptr || !value->is_string()) return bad_field(where + "." + name, "must be a string");
  text = value->get<std::string>();
  return std::nullopt;
}

std::optional<Refusal> read_text_part(const Json& part, const std::string& where, PartTypes types, std::string& text) {
  const auto type = part.is_object() ? part.find("type") : part.end();
  if (!part.is_object() || type == part.end() || !type->is_string()) {
    return bad_field(where, "must be an object with a type");
  }
  if (std::ranges::find(types, type->get_ref<const std::string&>()) == types.end()) {
    return not_available(where + ".type", fmt::format("'{}' is not available: this model takes text alone",
                                                      type->get<std::string>().substr(0, 40)));
  }
  const auto value = part.find("text");
  if (value == part.end() || !value->is_string()) return bad_field(where + ".text", "must be a string");
  text += value->get_ref<const std::string&>();
  return std::nullopt;
}

std::optional<Refusal> read_content(const Json* content, const std::string& where, PartTypes types, std::string& text) {
  if (content != nullptr && content->is_string()) {
    text = content->get<std::string>();
    return std::nullopt;
  }
  if (content == nullptr || !content->is_array()) return bad_field(where, "must be a string or a list of parts");
  for (std::size_t i = 0; i < content->size(); ++i) {
    if (i > 0) text += '\n';
    if (auto refusal = read_text_part((*content)[i], fmt::format("{}[{}]", where, i), types, text)) return refusal;
  }
  return std::nullopt;
}

Result<std::vector<std::int32_t>> prompt_ids(Pipeline& pipeline, const GenerationRequest& request) {
  if (const auto refusal = check_size(request, pipeline.engine().session_len())) {
    return Status(StatusCode::kTooLong, refusal->message);
  }
  return pipeline.prompt_tokens(request);
}

std::optional<Refusal> read_template_variables(const Json& body, std::string& variables) {
  Json all = Json::object();
  if (const Json* given = find(body, "chat_template_kwargs")) {
    for (const auto& [name, value] : given->items()) {
      if (value.is_structured()) {
        return bad_field("chat_template_kwargs." + name.substr(0, 100), "must be a string, a number or a truth value");
      }
    }
    all = *given;
  }
  for (const char* name : {"enable_thinking", "reasoning_effort", "add_generation_prompt", "continue_final_message"}) {
    if (const Json* value = find(body, name)) all[name] = *value;
  }
  if (all.value("continue_final_message", Json(false)) == true && !all.contains("add_generation_prompt")) {
    all["add_generation_prompt"] = false;
  }
  if (!all.empty()) variables = to_text(all);
  return std::nullopt;
}

std::vector<GenerationRequest> read_prompts(const Json& prompt) {
  std::vector<GenerationRequest> requests;
  const auto add = [&](const Json& one) {
    GenerationRequest& request = requests.emplace_back();
    if (one.is_string()) {
      request.prompt = one.get<std::string>();
    } else {
      request.prompt_ids = one.get<std::vector<std::int32_t>>();
    }
  };
  const bool many = prompt.is_array() && !prompt.empty() && !prompt.front().is_number();
  if (many) {
    for (const Json& one : prompt) add(one);
  } else {
    add(prompt);
  }
  return requests;
}

std::optional<Refusal> check_size(const GenerationRequest& request, std::int32_t session_len) {
  constexpr std::size_t kLongestTokenBytes = 256;
  std::size_t bytes = request.prompt ? request.prompt->size() : 0;
  for (const Message& message : request.messages) bytes += message.content.size() + message.more.size();
  const std::size_t most = kLongestTokenBytes * static_cast<std::size_t>(std::max(session_len, 1));
  if (bytes <= most) return std::nullopt;
  return refusal_of({StatusCode::kTooLong, fmt::format("the prompt has {} bytes, far more than the context of {} "
                                                       "tokens can hold",
                                                       bytes, session_len)});
}

std::optional<Refusal> check_text_size(std::string_view text) {
  constexpr std::size_t kMostBytes = 4 << 20;
  if (text.size() <= kMostBytes) return std::nullopt;
  return refusal_of({StatusCode::kTooLong, fmt::format("a text is longer than {} bytes", kMostBytes)});
}

std::optional<Refusal> check_model(const Json& body, const std::string& served) {
  const auto model = get<std::string>(body, "model");
  if (!model || model->empty() || *model == served) return std::nullopt;
  return unknown_model(model->substr(0, 200));
}

std::string random_id(std::string_view prefix) {
  constexpr std::string_view kLetters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  constexpr int kLength = 24;
  std::string id(prefix);
  for (int i = 0; i < kLength; ++i) id += kLetters[random_bits() % kLetters.size()];
  return id;
}

std::int64_t unix_seconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

}  // namespace lanner::server
