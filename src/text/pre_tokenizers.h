#pragma once
// How each GGUF pre-tokenizer name (tokenizer.ggml.pre) cuts text into words before byte-pair merging.
//
// GGUF files carry only a name; the rules stand in the tokenizer.json that the model was published with. The table
// holds those rules. Adding a family is one row in pre_tokenizers.cpp.

#include <string>
#include <string_view>
#include <vector>

#include "lanner/status.h"

namespace lanner {

struct PreTokenizerStep {
  enum class Kind {
    kSplit,             // each match of the Oniguruma pattern becomes a word of its own
    kIndividualDigits,  // every numeric character becomes a word of its own
    kDigitRuns,         // a run of numeric characters becomes a word
    kPunctuationRuns,   // a run of punctuation becomes a word
  };
  Kind kind = Kind::kSplit;
  std::string_view pattern;  // kSplit only
};

struct PreTokenizer {
  std::vector<std::string_view> names;  // the spellings of tokenizer.ggml.pre
  std::vector<PreTokenizerStep> steps;  // applied in this order, each to the words of the one before
  bool ignore_merges = false;           // a word that is in the vocabulary is taken whole
  bool add_bos = false;                 // when the GGUF file does not say
  bool normalize_nfc = false;           // the published tokenizer composes characters first
};

/// The rules of a name; "" means "default". kUnsupported, with all known names, for an unknown one. The result lives
/// as long as the program.
Result<const PreTokenizer*> find_pre_tokenizer(std::string_view name);

}  // namespace lanner
