#pragma once
// FNV-1a of 64 bits (draft-eastlake-fnv): tells accidents and different contents apart, not attackers.

#include <cstdint>
#include <string_view>

namespace lanner {

inline constexpr std::uint64_t kFnvOffset = 0xCBF29CE484222325U;

/// Of `text` behind what `hash` is of.
constexpr std::uint64_t fnv1a(std::string_view text, std::uint64_t hash = kFnvOffset) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return hash;
}

}  // namespace lanner
