#include "text/utf8.h"

#include <fmt/format.h>

namespace lanner {
namespace {

/// How much of a broken sequence one U+FFFD stands for: as many bytes as a character could begin with.
std::size_t broken_bytes(std::string_view bytes) {
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(bytes[at]); };
  const unsigned first = byte(0);
  if (first < 0xC2 || first > 0xF4) return 1;
  const std::size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  unsigned low = 0x80;
  unsigned high = 0xBF;
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  std::size_t at = 1;
  while (at < size && at < bytes.size() && byte(at) >= low && byte(at) <= high) {
    ++at;
    low = 0x80;
    high = 0xBF;
  }
  return at;
}

}  // namespace

Utf8Character first_character(std::string_view text) {
  if (text.empty()) return {};
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  std::size_t size = 0;
  std::uint32_t code = 0;
  std::uint32_t lowest = 0;  // below it the form is overlong
  if ((first & 0xE0) == 0xC0) {
    size = 2, code = first & 0x1F, lowest = 0x80;
  } else if ((first & 0xF0) == 0xE0) {
    size = 3, code = first & 0x0F, lowest = 0x800;
  } else if ((first & 0xF8) == 0xF0) {
    size = 4, code = first & 0x07, lowest = 0x10000;
  }
  if (size == 0 || text.size() < size) return {};
  for (std::size_t at = 1; at < size; ++at) {
    if ((byte(at) & 0xC0U) != 0x80U) return {};
    code = (code << 6) | (byte(at) & 0x3FU);
  }
  if (code < lowest || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return {};
  return {code, size};
}

std::size_t utf8_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t bytes = first_character(text.substr(at)).bytes;
    if (bytes == 0) break;
    at += bytes;
  }
  return at;
}

Status check_text(std::string_view text, std::size_t max_bytes) {
  if (text.size() > max_bytes) {
    return invalid_argument(fmt::format("a text of {} bytes is longer than the {} allowed", text.size(), max_bytes));
  }
  const std::size_t good = utf8_prefix(text);
  return good == text.size() ? Status() : invalid_argument(fmt::format("the text is not UTF-8 at byte {}", good));
}

void append_lossy(std::string& text, std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t good = utf8_prefix(bytes);
    text += bytes.substr(0, good);
    bytes.remove_prefix(good);
    if (bytes.empty()) return;
    text += kReplacementCharacter;
    bytes.remove_prefix(broken_bytes(bytes));
  }
}

bool is_unicode_blank(std::uint32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

}  // namespace lanner
