#pragma once
// JSON from a server: bounded before it is parsed, and read without surprises.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "lanner/status.h"

namespace lanner::net {

using Json = nlohmann::json;

inline constexpr std::int64_t kMaxJsonBytes = 16 << 20;
inline constexpr int kMaxJsonDepth = 32;
inline constexpr std::int64_t kMaxJsonValues = 1 << 20;

/// One document. kCorrupt when it is none or past a limit; `where` begins the message.
Result<Json> parse_hub_json(std::string_view text, std::string_view where);

/// The string or number under `key` of an object; nothing when it is missing or of another kind.
std::optional<std::string> json_text(const Json& object, const char* key);
std::optional<std::int64_t> json_integer(const Json& object, const char* key);

}  // namespace lanner::net
