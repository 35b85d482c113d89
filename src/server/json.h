#pragma once
// JSON from clients, checked before anything looks at it, and the few ways in which it is written.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "lanner/status.h"

namespace lanner::server {

using Json = nlohmann::ordered_json;

/// kInvalidArgument for what is no JSON in UTF-8, is nested deeper than 64 levels, has a key twice in one object, a
/// number beyond a double's range, an object of more than 1,024 members, or more than a million values.
Result<Json> parse_json(std::string_view text);

/// `text` as a JSON string, with its quotes; bytes that are no UTF-8 become U+FFFD.
std::string json_string(std::string_view text);
/// The value as text; strings are mended as above.
std::string to_text(const Json& json);

}  // namespace lanner::server
