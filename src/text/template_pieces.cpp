#include "text/template_pieces.h"

#include <fmt/format.h>

#include <utility>

namespace lanner {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxJsonBytes = 1 << 20;

struct TextKey {
  std::string_view key;
  std::string TemplatePieces::* piece;
};

constexpr TextKey kTextKeys[] = {
    {"system", &TemplatePieces::system},       {"eosys", &TemplatePieces::eosys},
    {"user", &TemplatePieces::user},           {"eoh", &TemplatePieces::eoh},
    {"assistant", &TemplatePieces::assistant}, {"eoa", &TemplatePieces::eoa},
    {"separator", &TemplatePieces::separator}, {"eotool", &TemplatePieces::eotool},
};

Status set_stop_words(TemplatePieces& pieces, const Json& value) {
  pieces.stop_words.clear();
  if (!value.is_array()) return invalid_argument("\"stop_words\" is not a list of strings");
  for (const Json& word : value) {
    if (!word.is_string()) return invalid_argument("\"stop_words\" is not a list of strings");
    pieces.stop_words.push_back(word.get<std::string>());
  }
  return {};
}

Status set_capability(TemplatePieces& pieces, const Json& value) {
  if (value == "chat") return {};
  if (value != "completion" && value != "python") {
    return unsupported("\"capability\" is none of \"chat\", \"completion\" and \"python\"");
  }
  // Plain continuation: the text goes to the model as it is.
  TemplatePieces plain;
  plain.names = pieces.names;
  plain.stop_words = pieces.stop_words;
  pieces = std::move(plain);
  return {};
}

Status set_key(TemplatePieces& pieces, const std::string& key, const Json& value) {
  if (value.is_null() || key == "model_name" || key == "capability") return {};
  if (key == "stop_words") return set_stop_words(pieces, value);
  if (!value.is_string()) return invalid_argument(fmt::format("\"{}\" is not a string", key.substr(0, 64)));
  if (key == "meta_instruction") {
    pieces.meta_instruction = value.get<std::string>();
    return {};
  }
  if (key == "tool") {
    pieces.tool = value.get<std::string>();
    return {};
  }
  for (const TextKey& known : kTextKeys) {
    if (known.key != key) continue;
    pieces.*known.piece = value.get<std::string>();
    // Who says how answers begin means the next one too.
    if (key == "assistant") pieces.open_answer.reset();
    return {};
  }
  return invalid_argument(fmt::format("unknown key \"{}\" in a chat template", key.substr(0, 64)));
}

Result<TemplatePieces> pieces_from_object(const Json& object) {
  TemplatePieces pieces;
  const auto name = object.find("model_name");
  if (name != object.end() && !name->is_null()) {
    if (!name->is_string()) return invalid_argument("\"model_name\" is not a string");
    // As in LMDeploy, an unknown name is that of a new template.
    Result<TemplatePieces> base = find_builtin_template(name->get_ref<const std::string&>());
    if (base.ok()) pieces = *std::move(base);
    pieces.names.insert(pieces.names.begin(), name->get<std::string>());
  }
  if (pieces.names.empty()) pieces.names = {"custom"};
  for (const auto& [key, value] : object.items()) LANNER_RETURN_IF_ERROR(set_key(pieces, key, value));
  const auto capability = object.find("capability");
  if (capability != object.end() && !capability->is_null()) {
    LANNER_RETURN_IF_ERROR(set_capability(pieces, *capability));
  }
  return pieces;
}

}  // namespace

bool deeper_than(const Json& value, int levels) {
  if (!value.is_structured()) return false;
  if (levels == 0) return true;
  for (const Json& item : value) {
    if (deeper_than(item, levels - 1)) return true;
  }
  return false;
}

Result<TemplatePieces> template_pieces_from_json(std::string_view json, std::string_view origin) {
  if (json.size() > kMaxJsonBytes) {
    return with_context(invalid_argument(fmt::format("more than {} bytes", kMaxJsonBytes)), origin);
  }
  const Json object = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) return with_context(invalid_argument("not valid JSON"), origin);
  if (!object.is_object()) return with_context(invalid_argument("not a JSON object"), origin);
  Result<TemplatePieces> pieces = pieces_from_object(object);
  if (!pieces.ok()) return with_context(pieces.status(), origin);
  return pieces;
}

}  // namespace lanner
