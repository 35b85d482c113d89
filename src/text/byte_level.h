#pragma once
// How GPT-2 spells bytes: printable Latin-1 as itself, the others from U+0100 on. Pure functions.

#include <optional>
#include <string>
#include <string_view>

namespace lanner {

std::string spell_bytes(std::string_view bytes);
/// The bytes that a piece spells, or nothing when it is no such spelling.
std::optional<std::string> read_spelled_bytes(std::string_view piece);

}  // namespace lanner
