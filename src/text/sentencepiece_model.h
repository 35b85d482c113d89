#pragma once
// A SentencePiece model as values: what a tokenizer.model says, and what the vocabulary of a GGUF file is turned into.
//
// The library reads its own files without distrust: lengths inside them reach its arrays unchecked. So a file
// is parsed and checked here, and the library is handed what serialize_sentencepiece_model() makes of the result.
//
// Pure values and pure functions: no ownership or thread rules.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "text/piece_type.h"

namespace lanner {

inline constexpr std::size_t kMaxSentencePieces = 1 << 22;

struct SentencePiece {
  std::string text;  // "▁" stands for a blank
  float score = 0;
  PieceType type = PieceType::kNormal;
};

struct SentencePieceModel {
  enum class Algorithm { kUnigram = 1, kBpe = 2, kWord = 3, kCharacter = 4 };

  std::vector<SentencePiece> pieces;  // (vocabulary)
  Algorithm algorithm = Algorithm::kUnigram;
  bool byte_fallback = false;  // what no piece spells becomes its bytes instead of the unknown piece
  bool blank_as_suffix = false;
  bool blank_only_pieces = false;
  std::string bos_piece = "<s>";
  std::string eos_piece = "</s>";

  std::string character_map;        // how characters are normalized, in the library's own form; may be empty
  bool add_dummy_prefix = true;     // a blank goes in front of every text
  bool remove_extra_blanks = true;  // at both ends, and all but one inside
  bool escape_blanks = true;        // a blank becomes "▁"
};

/// What a tokenizer.model holds. kCorrupt for anything but a well-formed message that check_sentencepiece_model
/// accepts.
Result<SentencePieceModel> parse_sentencepiece_model(std::string_view file);

/// kCorrupt unless the library can be given the model: no pieces or too many, a piece that is empty, too long, not
/// UTF-8 or there twice, no unknown piece or two, half a set of byte pieces, scores that are not finite, a map of
/// characters that leads out of itself.
Status check_sentencepiece_model(const SentencePieceModel& model);

/// The model as a file that the library reads.
std::string serialize_sentencepiece_model(const SentencePieceModel& model);

/// The value of a piece such as "<0xE4>", or -1.
int byte_of_piece(std::string_view piece);

}  // namespace lanner
