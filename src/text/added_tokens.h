#pragma once
// Tokens that a tokenizer's files add to its model: found in a text before the model sees what lies between them.
//
// At each place the longest token wins, and the leftmost place goes first, as in Hugging Face `tokenizers`.
//
// Threads: immutable after make(). Cost of split(): linear in the text for tokens of ordinary length.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lanner/status.h"

namespace lanner {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = true;       // a control token: left out of decoded text on request, and never read out of user text
  bool lstrip = false;       // takes the blanks in front of it along
  bool rstrip = false;       // takes the blanks behind it along
  bool single_word = false;  // only where no letter, digit or _ touches it
  bool only_behind = false;  // only right behind another added token: for contents that occur inside words
};

/// A stretch of a text: one added token, or what lies between two.
struct TextStretch {
  std::string_view text;
  const AddedToken* token = nullptr;  // null: ordinary text, never empty
};

class AddedTokens {
 public:
  AddedTokens() = default;
  /// kCorrupt for an empty or overlong content, one that is not UTF-8, and for an id or a content there twice.
  static Result<AddedTokens> make(std::vector<AddedToken> tokens);

  /// parse_special: also find special tokens. The result points into `text` and into this object.
  std::vector<TextStretch> split(std::string_view text, bool parse_special) const;

  const AddedToken* find(std::int32_t id) const;
  const AddedToken* find(std::string_view content) const;
  /// Highest id + 1, or 0.
  std::int32_t end_id() const { return end_id_; }

 private:
  struct Place {
    std::size_t at = 0;
    bool behind_token = false;
  };
  const AddedToken* longest_at(std::string_view text, Place place, bool parse_special) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::int32_t, std::size_t> by_id_;
  std::unordered_map<std::string, std::size_t> by_content_;
  std::int32_t end_id_ = 0;
  // A trie of the contents: (node, byte) to the next node; node 0 is the root.
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;
  std::vector<std::int32_t> ends_;  // (nodes) the token that ends here, or -1
  std::array<bool, 256> begins_{};  // whether a content begins with this byte
};

}  // namespace lanner
