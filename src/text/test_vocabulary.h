#pragma once
// Small tokenizers that the tests of this room share.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/bpe_vocabulary.h"
#include "text/sentencepiece_model.h"

namespace lanner::testing {

inline std::string to_utf8(std::uint32_t code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

/// How GPT-2 spells a byte: printable Latin-1 as itself, the others from U+0100 on.
inline std::string byte_piece(int byte) {
  const auto printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  if (printable(byte)) return to_utf8(static_cast<std::uint32_t>(byte));
  std::uint32_t code = 256;
  for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  return to_utf8(code);
}

/// Ids 0-255 are the bytes in order, then "he", "ll", "Ġw", then <s>, </s> (control) and <tool> (user defined).
inline BpeVocabulary tiny_vocabulary() {
  BpeVocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte) vocabulary.tokens.push_back(byte_piece(byte));
  const std::string blank = byte_piece(' ');
  for (const std::string& token : {std::string("he"), std::string("ll"), blank + "w"}) {
    vocabulary.tokens.push_back(token);
  }
  vocabulary.merges = {"h e", "l l", blank + " w"};
  vocabulary.token_types.assign(vocabulary.tokens.size(), 1);
  for (const char* token : {"<s>", "</s>", "<tool>"}) vocabulary.tokens.emplace_back(token);
  vocabulary.token_types.insert(vocabulary.token_types.end(), {3, 3, 4});
  vocabulary.pre_tokenizer = "gpt-2";
  vocabulary.bos_id = 259;
  vocabulary.eos_id = 260;
  return vocabulary;
}

/// A SentencePiece-like tokenizer: "▁" for blanks, byte fallback, and the first blank dropped in decoding.
/// Ids: 0 <unk>, 1-256 the bytes, 257 "▁", 258 "▁Hi", 259 "Hi", 260 "你".
inline std::string sentencepiece_like_json() {
  nlohmann::json vocab = {{"<unk>", 0}};
  static constexpr char kDigits[] = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    vocab[std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">"] = byte + 1;
  }
  vocab["▁"] = 257;
  vocab["▁Hi"] = 258;
  vocab["Hi"] = 259;
  vocab["你"] = 260;
  nlohmann::json decoders = nlohmann::json::array();
  decoders.push_back(nlohmann::json::object({{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}}));
  decoders.push_back(nlohmann::json::object({{"type", "ByteFallback"}}));
  decoders.push_back(nlohmann::json::object({{"type", "Fuse"}}));
  decoders.push_back(nlohmann::json::object({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}));
  nlohmann::json tokenizer = {{"version", "1.0"}, {"added_tokens", nlohmann::json::array()}};
  tokenizer["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
  tokenizer["model"] = {{"type", "BPE"},
                        {"unk_token", "<unk>"},
                        {"byte_fallback", true},
                        {"vocab", vocab},
                        {"merges", nlohmann::json::array()}};
  return tokenizer.dump();
}

/// A BPE model with byte pieces, as Llama's: 0 <unk>, 1 <s>, 2 </s>, 3-258 the bytes, then the pieces named below.
inline SentencePieceModel small_sentencepiece_model() {
  SentencePieceModel model;
  model.algorithm = SentencePieceModel::Algorithm::kBpe;
  model.byte_fallback = true;
  model.remove_extra_blanks = false;
  model.pieces = {{"<unk>", 0, PieceType::kUnknown}, {"<s>", 0, PieceType::kControl}, {"</s>", 0, PieceType::kControl}};
  static constexpr char kDigits[] = "0123456789ABCDEF";
  for (std::size_t byte = 0; byte < 256; ++byte) {
    model.pieces.push_back({std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">", 0, PieceType::kByte});
  }
  float score = 0;
  for (const char* text : {"▁a", "ab", "▁ab", "▁", "a", "b", "c", "[UNUSED_1]", "[UNUSED_2]"}) {
    model.pieces.push_back({text, score, PieceType::kNormal});
    score -= 1;
  }
  return model;
}

namespace piece {
inline constexpr std::int32_t kBytes = 3, kBlankA = 259, kAb = 260, kBlankAb = 261, kBlank = 262, kA = 263, kB = 264,
                              kC = 265, kUnused1 = 266, kUnused2 = 267;
}  // namespace piece

/// The bytes in order as a file of ranks, then "ab" with rank 256.
inline std::string small_ranks() {
  static constexpr char kBase64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string ranks;
  for (unsigned byte = 0; byte < 256; ++byte) {
    ranks += kBase64[byte >> 2];
    ranks += kBase64[(byte & 3) << 4];
    ranks += "== " + std::to_string(byte) + "\n";
  }
  return ranks + "YWI= 256\n";
}

}  // namespace lanner::testing
