#include "server/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace lanner::server {
namespace {

constexpr std::size_t kMaxStopBytes = 256;
constexpr std::size_t kMaxPrompts = 1'024;  // in one request
constexpr double kMaxTokenId = 2147483647;

bool is_whole(const Json& value) {
  if (value.is_number_integer()) return true;
  if (!value.is_number_float()) return false;
  const double number = value.get<double>();
  return std::floor(number) == number && std::abs(number) <= 9007199254740992.0;
}

bool is_token(const Json& value) {
  return is_whole(value) && value.get<double>() >= 0 && value.get<double>() <= kMaxTokenId;
}
bool is_string(const Json& value) { return value.is_string(); }
bool is_message(const Json& value) { return value.is_object(); }
bool is_tokens(const Json& value) { return value.is_array() && std::ranges::all_of(value, is_token); }

template <typename Predicate>
bool is_list_of(const Json& value, Predicate predicate) {
  return value.is_array() && std::ranges::all_of(value, predicate);
}

bool is_prompt(const Json& value) {
  if (value.is_string() || is_tokens(value)) return true;
  return is_list_of(value, is_string) || is_list_of(value, is_tokens);
}

struct KindRow {
  FieldKind kind;
  const char* wanted;  // in "must be …"
  bool (*fits)(const Json&);
  const char* schema;
};

constexpr std::array kKinds{
    KindRow{FieldKind::kBoolean, "true or false", [](const Json& v) { return v.is_boolean(); },
            R"({"type":"boolean"})"},
    KindRow{FieldKind::kInteger, "a whole number", [](const Json& v) { return is_whole(v); }, R"({"type":"integer"})"},
    KindRow{FieldKind::kNumber, "a number", [](const Json& v) { return v.is_number(); }, R"({"type":"number"})"},
    KindRow{FieldKind::kString, "a string", [](const Json& v) { return v.is_string(); }, R"({"type":"string"})"},
    KindRow{FieldKind::kStrings, "a string or a list of strings",
            [](const Json& v) { return v.is_string() || is_list_of(v, is_string); },
            R"({"anyOf":[{"type":"string"},{"type":"array","items":{"type":"string"}}]})"},
    KindRow{FieldKind::kStops, "a string or a list of strings",
            [](const Json& v) { return v.is_string() || is_list_of(v, is_string); },
            R"({"anyOf":[{"type":"string"},{"type":"array","items":{"type":"string"}}]})"},
    KindRow{FieldKind::kTokens, "a list of token ids", [](const Json& v) { return is_tokens(v); },
            R"({"type":"array","items":{"type":"integer","minimum":0,"maximum":2147483647}})"},
    KindRow{
        FieldKind::kPrompt, "a string, a list of token ids, or a list of either",
        [](const Json& v) { return is_prompt(v); },
        R"({"anyOf":[{"type":"string"},{"type":"array","items":{"type":"string"}},)"
        R"({"type":"array","items":{"type":"integer","minimum":0,"maximum":2147483647}},)"
        R"({"type":"array","items":{"type":"array","items":{"type":"integer","minimum":0,"maximum":2147483647}}}]})"},
    KindRow{FieldKind::kMessages, "a list of messages", [](const Json& v) { return is_list_of(v, is_message); },
            R"({"type":"array","items":{"$ref":"#/components/schemas/Message"}})"},
    KindRow{FieldKind::kTalk, "a string or a list of messages",
            [](const Json& v) { return v.is_string() || is_list_of(v, is_message); },
            R"({"anyOf":[{"type":"string"},{"type":"array","items":{"$ref":"#/components/schemas/Message"}}]})"},
    KindRow{FieldKind::kItems, "a string or a list of objects",
            [](const Json& v) { return v.is_string() || is_list_of(v, is_message); },
            R"({"anyOf":[{"type":"string"},{"type":"array","items":{"type":"object"}}]})"},
    KindRow{FieldKind::kObject, "an object", [](const Json& v) { return v.is_object(); }, R"({"type":"object"})"},
    KindRow{FieldKind::kChoice, "a string or an object", [](const Json& v) { return v.is_string() || v.is_object(); },
            R"({"anyOf":[{"type":"string"},{"type":"object"}]})"},
    KindRow{FieldKind::kList, "a list", [](const Json& v) { return v.is_array(); }, R"({"type":"array"})"},
    KindRow{FieldKind::kBiases, "an object of token ids and numbers", [](const Json& v) { return v.is_object(); },
            R"({"type":"object","additionalProperties":{"type":"number","minimum":-100,"maximum":100}})"},
};

const KindRow& row_of(FieldKind kind) {
  return *std::ranges::find(kKinds, kind, &KindRow::kind);  // all kinds have one
}

bool is_number(FieldKind kind) { return kind == FieldKind::kInteger || kind == FieldKind::kNumber; }

std::optional<Refusal> check_range(const Field& field, const Json& value) {
  if (field.low == 0 && field.high == 0) return std::nullopt;
  if (is_number(field.kind)) {
    const double number = value.get<double>();
    if (number >= field.low && number <= field.high) return std::nullopt;
    return bad_field(field.name, fmt::format("must be between {} and {}", field.low, field.high));
  }
  if (value.is_string() && field.kind != FieldKind::kString) return std::nullopt;  // one of those it could have many of
  const auto length =
      static_cast<double>(value.is_string() ? value.get_ref<const std::string&>().size() : value.size());
  if (length >= field.low && length <= field.high) return std::nullopt;
  if (length < field.low) return bad_field(field.name, "must not be empty");
  return bad_field(field.name, fmt::format("must not be longer than {}", field.high));
}

std::optional<Refusal> check_biases(const Field& field, const Json& value) {
  for (const auto& [key, bias] : value.items()) {
    std::int32_t token = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size() || token < 0) {
      return bad_field(field.name, fmt::format("'{}' is no token id", key.substr(0, 40)));
    }
    if (!bias.is_number() || std::abs(bias.get<double>()) > 100) {
      return bad_field(field.name, "a bias must be a number between -100 and 100");
    }
  }
  return std::nullopt;
}

std::optional<Refusal> check_content(const Field& field, const Json& value) {
  if (field.kind == FieldKind::kBiases) return check_biases(field, value);
  if (field.kind == FieldKind::kStops) {
    const auto too_long = [](const Json& one) {
      const std::size_t size = one.get_ref<const std::string&>().size();
      return size == 0 || size > kMaxStopBytes;
    };
    if (value.is_array() ? std::ranges::any_of(value, too_long) : too_long(value)) {
      return bad_field(field.name, fmt::format("a string must have 1 to {} bytes", kMaxStopBytes));
    }
  }
  const bool many = field.kind == FieldKind::kPrompt && value.is_array() && !is_tokens(value);
  if (many && value.size() > kMaxPrompts) {
    return bad_field(field.name, fmt::format("must not be longer than {}", kMaxPrompts));
  }
  return std::nullopt;
}

std::optional<Refusal> check_field(const Field& field, const Json& value) {
  if (value.is_null()) {
    if (!field.required) return std::nullopt;
    return bad_field(field.name, "this field is required");
  }
  if (field.only != nullptr) {
    const Json allowed = Json::parse(field.only);
    if (std::ranges::find(allowed, value) != allowed.end()) return std::nullopt;
    return not_available(field.name, fmt::format("not available in this version beyond {}", field.only));
  }
  const KindRow& row = row_of(field.kind);
  if (!row.fits(value)) return bad_field(field.name, fmt::format("must be {}", row.wanted));
  if (auto refusal = check_range(field, value)) return refusal;
  return check_content(field, value);
}

const Field* find_field(std::span<const Fields> tables, std::string_view name) {
  for (const Fields table : tables) {
    for (const Field& field : table) {
      if (field.name == name) return &field;
    }
  }
  return nullptr;
}

Json field_schema(const Field& field) {
  const KindRow& row = row_of(field.kind);
  Json schema = Json::parse(row.schema);
  if (field.only != nullptr) {
    schema = Json::object();
    schema["enum"] = Json::parse(field.only);
    if (!field.required) schema["enum"].push_back(nullptr);
  } else if (field.low != 0 || field.high != 0) {
    const bool whole = field.kind != FieldKind::kNumber;
    const auto number = [&](double value) { return whole ? Json(static_cast<std::int64_t>(value)) : Json(value); };
    const bool list = schema.value("type", "") == "array";
    if (is_number(field.kind)) {
      schema["minimum"] = number(field.low);
      schema["maximum"] = number(field.high);
    } else if (list || field.kind == FieldKind::kString) {
      schema[list ? "minItems" : "minLength"] = number(field.low);
      if (list) schema["maxItems"] = number(field.high);
    }
  }
  if (!field.required && field.only == nullptr) {
    if (schema.contains("type")) {
      schema["type"] = Json::array({schema["type"], "null"});
    } else {
      schema["anyOf"].push_back({{"type", "null"}});
    }
  }
  schema["description"] = field.text;
  return schema;
}

}  // namespace

const Json* find(const Json& body, std::string_view name) {
  const auto found = body.find(name);
  return found == body.end() || found->is_null() ? nullptr : &*found;
}

std::optional<Refusal> check_fields(const Json& body, std::span<const Fields> tables) {
  if (!body.is_object()) return Refusal{.message = "the body must be a JSON object", .code = "invalid_value"};
  for (const auto& [name, value] : body.items()) {
    const Field* field = find_field(tables, name);
    if (field == nullptr) {
      Refusal refusal = bad_field(name.substr(0, 100), "unknown field");
      refusal.code = "unknown_parameter";
      return refusal;
    }
    if (auto refusal = check_field(*field, value)) return refusal;
  }
  for (const Fields table : tables) {
    for (const Field& field : table) {
      if (field.required && find(body, field.name) == nullptr) return bad_field(field.name, "this field is required");
    }
  }
  return std::nullopt;
}

Json fields_schema(std::span<const Fields> tables) {
  Json schema{{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
  Json required = Json::array();
  for (const Fields table : tables) {
    for (const Field& field : table) {
      schema["properties"][field.name] = field_schema(field);
      if (field.required) required.push_back(field.name);
    }
  }
  if (!required.empty()) schema["required"] = required;
  return schema;
}

}  // namespace lanner::server
