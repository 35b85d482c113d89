#pragma once
// The byte-level BPE vocabulary that a GGUF file carries, and its translation into a tokenizer.json.
//
// Pure values and one pure function: no ownership or thread rules.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "text/piece_type.h"

namespace lanner {

/// What a GGUF file of tokenizer.ggml.model "gpt2" holds, as it stands in the file.
struct BpeVocabulary {
  std::vector<std::string> tokens;        // (vocabulary) byte-level pieces
  std::vector<std::int32_t> token_types;  // (vocabulary) PieceType, or empty: all normal
  std::vector<std::string> merges;        // "left right", the first one is merged first
  std::string pre_tokenizer;              // tokenizer.ggml.pre: "smollm", "llama-bpe", …; empty means "default"
  bool add_prefix_space = false;
  std::optional<bool> add_bos;  // when the file does not say: as the pre-tokenizer's family does
  std::optional<bool> add_eos;
  std::optional<std::int32_t> bos_id;
  std::optional<std::int32_t> eos_id;
};

/// The same vocabulary as the text of a tokenizer.json. kCorrupt when the parts contradict each other (lengths, ids,
/// a token twice, a merge without a blank, text that is not UTF-8), kUnsupported for an unknown pre-tokenizer.
Result<std::string> bpe_vocabulary_to_json(const BpeVocabulary& vocabulary);

}  // namespace lanner
