#pragma once
// The vocabulary inside a GGUF file, the keys that begin with "tokenizer.ggml.", as a Tokenizer.

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "lanner/status.h"
#include "model/gguf.h"
#include "text/tokenizer.h"

namespace lanner::model {

/// kUnsupported, naming the kind, unless tokenizer.ggml.model is "gpt2" (byte-level BPE) or "llama" (SentencePiece
/// BPE); kNotFound when there is no vocabulary.
Result<std::shared_ptr<const Tokenizer>> gguf_tokenizer(const Gguf& gguf);

/// What gguf_tokenizer() makes its tokenizer of, for the kind "gpt2".
Result<BpeVocabulary> gguf_bpe_vocabulary(const Gguf& gguf);

/// The same for the kind "llama". Its control, unknown and user-defined pieces are found in a text first, and the dummy
/// prefix stands behind each of them, as in llama.cpp.
struct SentencePieceVocabulary {
  SentencePieceModel model;
  SentencePieceRules rules;
};
Result<SentencePieceVocabulary> gguf_sentencepiece_vocabulary(const Gguf& gguf);

/// tokenizer.ggml.tokens; kNotFound when it is missing, kCorrupt for more than a model can have rows. The views point
/// into the file.
Result<std::vector<std::string_view>> gguf_tokens(const Gguf& gguf);
/// tokenizer.ggml.token_type, no more than that; nothing where it is missing.
Result<std::vector<std::int32_t>> gguf_token_types(const Gguf& gguf);
/// tokenizer.ggml.NAME, such as bos_token_id, where it is the id of a token.
std::optional<std::int32_t> gguf_token_id(const Gguf& gguf, std::string_view name);

}  // namespace lanner::model
