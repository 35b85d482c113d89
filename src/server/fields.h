#pragma once
// The one description of what requests hold: it checks their bodies, and the OpenAPI document is made from it.
//
// A field that no table has is refused, and so is a value for what this server cannot do: nothing that a client asks
// for is dropped in silence. `null` counts as absent, as the clients of OpenAI mean it.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "server/json.h"
#include "server/refusal.h"

namespace lanner::server {

enum class FieldKind : std::uint8_t {
  kBoolean,
  kInteger,
  kNumber,
  kString,
  kStrings,   // a string or a list of strings
  kStops,     // the same, each of at most 256 bytes
  kTokens,    // a list of token ids
  kPrompt,    // a string, token ids, or a list of either
  kMessages,  // a list of messages
  kTalk,      // a string or a list of messages
  kItems,     // a string or a list of objects
  kObject,
  kChoice,  // a string or an object
  kList,
  kBiases,  // an object: token id to a number
};

struct Field {
  const char* name;
  FieldKind kind;
  const char* text;  // what it does
  /// Least and greatest: of a number; of the length of a string or list, and then `low` is 0 where it is not given.
  double low = 0;
  double high = 0;  // both 0: any
  bool required = false;
  /// The values that are taken, as a JSON list: others are refused as not available. nullptr: all of its kind.
  const char* only = nullptr;
};

using Fields = std::span<const Field>;

/// What is wrong with the body of a request; nothing when all is well. The body is an object afterwards.
std::optional<Refusal> check_fields(const Json& body, std::span<const Fields> tables);

/// The schema of such a body, for OpenAPI 3.1.
Json fields_schema(std::span<const Fields> tables);

/// The value of a field, nullptr when it is absent or null.
const Json* find(const Json& body, std::string_view name);

/// The value of a field that check_fields() has passed.
template <typename T>
std::optional<T> get(const Json& body, std::string_view name) {
  const Json* value = find(body, name);
  if (value == nullptr) return std::nullopt;
  return value->get<T>();
}
template <typename T>
T get_or(const Json& body, std::string_view name, T otherwise) {
  return get<T>(body, name).value_or(std::move(otherwise));
}

}  // namespace lanner::server
