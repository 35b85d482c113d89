#pragma once
// CRC-32 as zip and PNG have it (ISO 3309): tells accidents, not attackers.

#include <array>
#include <cstdint>
#include <string_view>

namespace lanner {

namespace crc32_table {

/// The remainder of each byte.
constexpr std::array<std::uint32_t, 256> make() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = (rest & 1U) != 0 ? rest >> 1U ^ 0xEDB88320U : rest >> 1U;
    table[byte] = rest;
  }
  return table;
}

inline constexpr std::array<std::uint32_t, 256> kTable = make();

}  // namespace crc32_table

constexpr std::uint32_t crc32(std::string_view bytes) {
  std::uint32_t sum = 0xFFFFFFFFU;
  for (const char byte : bytes) sum = sum >> 8U ^ crc32_table::kTable[(sum ^ static_cast<unsigned char>(byte)) & 255U];
  return ~sum;
}

}  // namespace lanner
