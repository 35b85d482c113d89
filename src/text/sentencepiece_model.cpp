#include "text/sentencepiece_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <bitset>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <unordered_map>

#include "text/utf8.h"

namespace lanner {
namespace {

constexpr std::size_t kMaxPieceBytes = 4096;
constexpr float kMaxScore = 1e9F;
// The library keeps the results of one look-up in arrays of these sizes, and does not look whether they suffice.
constexpr int kMaxNestedSymbols = 64;
constexpr int kMaxNestedRules = 32;
constexpr std::size_t kMaxRuleUnits = 1 << 18;  // the maps that the library brings along have less than a third

/// A double array of darts-clone, as the library walks it without checks.
class RuleTrie {
 public:
  RuleTrie(std::string_view units, std::string_view replacements) : units_(units), replacements_(replacements) {}

  /// Whether no key leads out of the array, more rules than fit lie on one path, or a rule's text has no end.
  bool is_sound() {
    const std::size_t count = size();
    if (count == 0 || count > kMaxRuleUnits || units_.size() % sizeof(std::uint32_t) != 0) return false;
    if (replacements_.empty() || replacements_.back() != '\0') return false;
    most_rules_.assign(count, -1);
    std::vector<Node> open;
    if (!enter(offset(unit(0)), 0, open)) return false;
    while (!open.empty()) {
      const Node node = open.back();
      open.pop_back();
      for (std::uint32_t label = 0; label < 256; ++label) {
        const std::size_t child = node.base ^ label;
        if (child >= count) return false;
        const std::uint32_t entry = unit(child);
        if ((entry & 0x800000FFU) != label) continue;
        const std::size_t base = child ^ offset(entry);
        int rules = node.rules;
        if ((entry & 0x100U) != 0) {
          if (base >= count || (unit(base) & 0x7FFFFFFFU) >= replacements_.size() || ++rules > kMaxNestedRules) {
            return false;
          }
        }
        if (!enter(base, rules, open)) return false;
      }
    }
    return true;
  }

 private:
  struct Node {
    std::size_t base;
    int rules;  // on the path that leads here
  };

  std::size_t size() const { return units_.size() / sizeof(std::uint32_t); }

  std::uint32_t unit(std::size_t at) const {
    std::uint32_t value = 0;
    std::memcpy(&value, units_.data() + at * sizeof value, sizeof value);
    return value;
  }

  static std::size_t offset(std::uint32_t entry) { return (entry >> 10) << ((entry & 0x200U) >> 6); }

  /// Paths may meet. A place is looked at again only where more rules lead to it, so that circles come to an end.
  bool enter(std::size_t base, int rules, std::vector<Node>& open) {
    if (base >= size()) return false;
    if (rules <= most_rules_[base]) return true;
    most_rules_[base] = static_cast<std::int8_t>(rules);
    open.push_back({base, rules});
    return true;
  }

  std::string_view units_;
  std::string_view replacements_;
  std::vector<std::int8_t> most_rules_;  // (units) on the paths to a place, -1: none found yet
};

Status check_character_map(std::string_view map) {
  if (map.empty()) return {};
  std::uint32_t trie_bytes = 0;
  if (map.size() > sizeof trie_bytes) std::memcpy(&trie_bytes, map.data(), sizeof trie_bytes);
  const std::string_view body = map.substr(std::min(map.size(), sizeof trie_bytes));
  if (trie_bytes >= body.size()) return corrupt("precompiled_charsmap is cut off");
  if (!RuleTrie(body.substr(0, trie_bytes), body.substr(trie_bytes)).is_sound()) {
    return corrupt("precompiled_charsmap contradicts itself");
  }
  return {};
}

Status check_piece(const SentencePieceModel& model, std::size_t id) {
  const SentencePiece& piece = model.pieces[id];
  if (piece.text.empty()) return corrupt(fmt::format("piece {} is empty", id));
  if (piece.text.size() > kMaxPieceBytes) {
    return corrupt(fmt::format("piece {} has {} bytes, allowed are {}", id, piece.text.size(), kMaxPieceBytes));
  }
  if (utf8_prefix(piece.text) != piece.text.size()) return corrupt(fmt::format("piece {} is not UTF-8", id));
  if (!std::isfinite(piece.score) || std::abs(piece.score) > kMaxScore) {
    return corrupt(fmt::format("piece {} has the score {}", id, piece.score));
  }
  if (piece.type == PieceType::kByte && byte_of_piece(piece.text) < 0) {
    return corrupt(fmt::format("piece {} is a byte, but not spelled as one", id));
  }
  // The library's tries take C strings.
  const bool in_trie = piece.type == PieceType::kUserDefined ||
                       (model.algorithm == SentencePieceModel::Algorithm::kUnigram && !is_reserved(piece.type));
  if (in_trie && piece.text.find('\0') != std::string::npos) return corrupt(fmt::format("piece {} holds a NUL", id));
  return {};
}

Status check_distinct(const SentencePieceModel& model) {
  std::unordered_map<std::string_view, std::size_t> normal;
  std::unordered_map<std::string_view, std::size_t> reserved;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    auto& known = is_reserved(model.pieces[id].type) ? reserved : normal;
    const auto [place, inserted] = known.emplace(model.pieces[id].text, id);
    if (!inserted) return corrupt(fmt::format("pieces {} and {} are the same", place->second, id));
  }
  return {};
}

Status check_byte_pieces(const SentencePieceModel& model) {
  std::bitset<256> found;
  for (const SentencePiece& piece : model.pieces) {
    if (piece.type == PieceType::kByte) found.set(static_cast<std::size_t>(byte_of_piece(piece.text)));
  }
  if (model.byte_fallback && !found.all()) {
    return corrupt(fmt::format("byte_fallback is on with {} of 256 byte pieces", found.count()));
  }
  if (!model.byte_fallback && found.any()) return corrupt("has byte pieces, but byte_fallback is off");
  return {};
}

Status check_nesting(const SentencePieceModel& model) {
  std::vector<std::string_view> symbols;
  for (const SentencePiece& piece : model.pieces) {
    if (piece.type == PieceType::kUserDefined) symbols.emplace_back(piece.text);
  }
  std::ranges::sort(symbols);
  std::vector<std::string_view> around;  // the symbols that the current one begins with
  for (const std::string_view symbol : symbols) {
    while (!around.empty() && !symbol.starts_with(around.back())) around.pop_back();
    around.push_back(symbol);
    if (around.size() > kMaxNestedSymbols) {
      return corrupt(fmt::format("more than {} user-defined pieces begin one with the other", kMaxNestedSymbols));
    }
  }
  return {};
}

}  // namespace

int byte_of_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>') return -1;
  int value = 0;
  for (const char digit : piece.substr(3, 2)) {
    const bool letter = digit >= 'A' && digit <= 'F';
    if (!letter && (digit < '0' || digit > '9')) return -1;
    value = value * 16 + (letter ? digit - 'A' + 10 : digit - '0');
  }
  return value;
}

Status check_sentencepiece_model(const SentencePieceModel& model) {
  if (model.pieces.empty()) return corrupt("has no pieces");
  if (model.pieces.size() > kMaxSentencePieces) {
    return corrupt(fmt::format("has more than {} pieces", kMaxSentencePieces));
  }
  std::size_t unknown = 0;
  bool spells = false;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    LANNER_RETURN_IF_ERROR(check_piece(model, id));
    unknown += model.pieces[id].type == PieceType::kUnknown ? 1 : 0;
    spells = spells || !is_reserved(model.pieces[id].type);
  }
  if (unknown != 1) return corrupt(fmt::format("has {} unknown pieces instead of one", unknown));
  if (!spells) return corrupt("has no piece that spells text");
  LANNER_RETURN_IF_ERROR(check_distinct(model));
  LANNER_RETURN_IF_ERROR(check_byte_pieces(model));
  LANNER_RETURN_IF_ERROR(check_nesting(model));
  return check_character_map(model.character_map);
}

}  // namespace lanner
