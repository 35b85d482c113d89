#pragma once
// What a piece of a vocabulary is. The numbers are SentencePiece's own, which GGUF took over.

#include <cstdint>

namespace lanner {

enum class PieceType : std::int32_t {
  kNormal = 1,
  kUnknown = 2,      // stands for what the vocabulary cannot spell
  kControl = 3,      // never comes out of text: <s>, </s>
  kUserDefined = 4,  // always one token, whatever surrounds it
  kUnused = 5,
  kByte = 6,  // <0x00> to <0xFF>
};

/// Spells no text of its own. Such a piece may have the same content as one that does.
constexpr bool is_reserved(PieceType type) {
  return type == PieceType::kUnknown || type == PieceType::kControl || type == PieceType::kByte;
}

}  // namespace lanner
