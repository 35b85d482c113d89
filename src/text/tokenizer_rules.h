#pragma once
// What the files beside a vocabulary say about its use: the settings of the classes that Transformers wraps around
// SentencePiece and tiktoken. Plain values.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"

namespace lanner {

/// Where SentencePiece's blank goes, that turns "Hello" into "▁Hello", in a model that has one.
enum class DummyPrefix {
  kEveryStretch,  // in front of the text and behind every added token, as the library does it: LlamaTokenizer with
                  // legacy set, in Transformers 4; version 5 leaves it out in front of a blank
  kTextOnly,      // in front of the text, unless it begins with a blank or an added token: with legacy off
  kNever,
};

/// What goes around a text whose special tokens are asked for.
struct TextEnds {
  std::vector<std::int32_t> prefix_ids;  // BOS. Several are left out where the text begins with all of them: the
                                         // templates of models that have such a prefix write it themselves
  std::vector<std::int32_t> suffix_ids;

  void put_around(std::vector<std::int32_t>& ids) const;
};

struct SentencePieceRules {
  /// May take the place of a piece of the model: then its content is what the id means.
  std::vector<AddedToken> added_tokens;
  TextEnds ends;
  DummyPrefix dummy_prefix = DummyPrefix::kEveryStretch;
};

struct TiktokenRules {
  std::string pattern;         // the Oniguruma expression that cuts a text into words
  bool normalize_nfc = false;  // characters are composed first
  std::vector<AddedToken> added_tokens;
  TextEnds ends;
};

/// How Qwen's first models and glm-4 cut a text.
inline constexpr std::string_view kQwenWords =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kGlm4Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace lanner
