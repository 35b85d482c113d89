#pragma once
// UTF-8, as far as tokenizers look at it. Pure functions.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "lanner/status.h"

namespace lanner {

/// One code point at the beginning of a text.
struct Utf8Character {
  std::uint32_t code = 0;
  std::size_t bytes = 0;  // 0: what stands there is not UTF-8, or there is nothing
};

/// The first character. Surrogates, overlong forms and codes beyond U+10FFFF are not UTF-8.
Utf8Character first_character(std::string_view text);

/// How many bytes at the beginning of a text are UTF-8: all of them, or up to the first bad one.
std::size_t utf8_prefix(std::string_view text);

/// kInvalidArgument for more than `max_bytes`, and for what is not UTF-8: then the message names the first bad byte.
Status check_text(std::string_view text, std::size_t max_bytes);

/// Bytes to text: what is no UTF-8 becomes U+FFFD, one for each sequence that could have become a character, as
/// Python's errors="replace" does it.
void append_lossy(std::string& text, std::string_view bytes);

/// Unicode's White_Space property.
bool is_unicode_blank(std::uint32_t code);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace lanner
