#include "text/byte_level.h"

#include <array>
#include <cstdint>

#include "text/utf8.h"

namespace lanner {
namespace {

struct Spelling {
  std::array<std::uint32_t, 256> code_of_byte{};
  std::array<int, 512> byte_of_code{};  // -1: no byte is spelled so
};

constexpr Spelling make_spelling() {
  Spelling spelling;
  for (int& byte : spelling.byte_of_code) byte = -1;
  std::uint32_t next = 0x100;
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    const std::uint32_t code = printable ? byte : next++;
    spelling.code_of_byte[byte] = code;
    spelling.byte_of_code[code] = static_cast<int>(byte);
  }
  return spelling;
}

constexpr Spelling kSpelling = make_spelling();

}  // namespace

std::string spell_bytes(std::string_view bytes) {
  std::string piece;
  for (const char byte : bytes) {
    const std::uint32_t code = kSpelling.code_of_byte[static_cast<unsigned char>(byte)];
    if (code < 0x80) {
      piece += static_cast<char>(code);
    } else {
      piece += static_cast<char>(0xC0U | (code >> 6));
      piece += static_cast<char>(0x80U | (code & 0x3FU));
    }
  }
  return piece;
}

std::optional<std::string> read_spelled_bytes(std::string_view piece) {
  std::string bytes;
  while (!piece.empty()) {
    const Utf8Character next = first_character(piece);
    if (next.bytes == 0 || next.code >= kSpelling.byte_of_code.size()) return std::nullopt;
    const int byte = kSpelling.byte_of_code[next.code];
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(byte);
    piece.remove_prefix(next.bytes);
  }
  return bytes;
}

}  // namespace lanner
