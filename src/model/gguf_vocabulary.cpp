#include "model/gguf_vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "core/ascii.h"
#include "model/decoder_spec.h"
#include "model/json_reader.h"

namespace lanner::model {
namespace {

constexpr std::int64_t kMaxMerges = 4 * kMaxVocab;

bool flag_or(const Gguf& gguf, std::string_view key, bool fallback) {
  const auto* flag = metadata_value<bool>(gguf, key);
  return flag == nullptr ? fallback : *flag;
}

/// Before memory is taken for the elements of an array.
Status check_count(const GgufArray& array, std::int64_t max_count, const std::string& where) {
  if (array.count <= max_count) return {};
  return corrupt(fmt::format("{}: {} elements, allowed are {}", where, array.count, max_count));
}

Result<std::vector<std::string_view>> strings(const Gguf& gguf, std::string_view key, std::int64_t max_count) {
  const std::string where = fmt::format("{}: {}", gguf.path, key);
  const auto* array = metadata_value<GgufArray>(gguf, key);
  if (array == nullptr) return not_found(fmt::format("{}: is missing", where));
  LANNER_RETURN_IF_ERROR(check_count(*array, max_count, where));
  return gguf_strings(*array, where);
}

Result<std::vector<float>> scores(const Gguf& gguf, std::size_t count) {
  const auto* array = metadata_value<GgufArray>(gguf, "tokenizer.ggml.scores");
  const auto wrong = [&](std::string_view why) {
    return corrupt(fmt::format("{}: tokenizer.ggml.scores: {}", gguf.path, why));
  };
  if (array == nullptr) return wrong("is missing");
  if (array->element != GgufType::kF32) return wrong("are no 32-bit floats");
  if (array->count != static_cast<std::int64_t>(count)) {
    return wrong(fmt::format("{} scores for {} tokens", array->count, count));
  }
  std::vector<float> values(count);
  if (array->bytes.size() != count * sizeof(float)) return wrong("are cut off");
  if (count > 0) std::memcpy(values.data(), array->bytes.data(), array->bytes.size());
  return values;
}

/// llama.cpp takes these ids where a file of the kind "llama" names none.
constexpr std::int32_t kDefaultUnknown = 0;
constexpr std::int32_t kDefaultBos = 1;
constexpr std::int32_t kDefaultEos = 2;

/// Phi-3 takes the blanks behind its markers along; the format has no place for that, so llama.cpp goes by the name.
bool strips_behind_markers(const Gguf& gguf, std::string_view marker) {
  const auto* name = metadata_value<std::string_view>(gguf, "general.name");
  if (name == nullptr) return false;
  const std::string model = lower_case(*name);
  if (model.find("phi-3") == std::string::npos && model.find("phi3") == std::string::npos) return false;
  return marker != "<unk>" && marker != "<s>" && marker != "<|endoftext|>";
}

/// The library wants one unknown piece, neither none nor two.
void settle_unknown(std::vector<SentencePiece>& pieces, std::int32_t unknown) {
  const auto is_unknown = [](const SentencePiece& piece) { return piece.type == PieceType::kUnknown; };
  if (std::ranges::none_of(pieces, is_unknown)) {
    pieces[static_cast<std::size_t>(unknown) < pieces.size() ? static_cast<std::size_t>(unknown) : 0].type =
        PieceType::kUnknown;
  }
  auto first = std::ranges::find_if(pieces, is_unknown);
  for (auto piece = std::next(first); piece != pieces.end(); ++piece) {
    if (is_unknown(*piece)) piece->type = PieceType::kControl;
  }
}

Result<SentencePieceModel> read_pieces(const Gguf& gguf) {
  SentencePieceModel model;
  LANNER_ASSIGN_OR_RETURN(const auto tokens, gguf_tokens(gguf));
  if (tokens.empty()) return corrupt(fmt::format("{}: tokenizer.ggml.tokens: is empty", gguf.path));
  LANNER_ASSIGN_OR_RETURN(const auto types, gguf_token_types(gguf));
  if (types.size() != tokens.size()) {
    return corrupt(
        fmt::format("{}: tokenizer.ggml.token_type: {} types for {} tokens", gguf.path, types.size(), tokens.size()));
  }
  LANNER_ASSIGN_OR_RETURN(const auto values, scores(gguf, tokens.size()));
  model.pieces.reserve(tokens.size());
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    auto type = types[id] < 1 || types[id] > 6 ? PieceType::kNormal : static_cast<PieceType>(types[id]);
    // Files may hold empty pieces as padding.
    const bool padding = tokens[id].empty();
    if (padding) type = PieceType::kControl;
    if (type == PieceType::kByte) model.byte_fallback = true;
    model.pieces.push_back({padding ? fmt::format("[EMPTY_{}]", id) : std::string(tokens[id]), values[id], type});
  }
  settle_unknown(model.pieces, gguf_token_id(gguf, "unknown_token_id").value_or(kDefaultUnknown));
  model.algorithm = SentencePieceModel::Algorithm::kBpe;
  model.add_dummy_prefix = flag_or(gguf, "tokenizer.ggml.add_space_prefix", true);
  model.remove_extra_blanks = false;
  return model;
}

/// BOS or EOS around a text.
Status add_end(const Gguf& gguf, std::string_view key, bool fallback, std::optional<std::int32_t> id,
               std::size_t tokens, std::vector<std::int32_t>& ids) {
  if (!flag_or(gguf, key, fallback)) return {};
  if (!id || static_cast<std::size_t>(*id) >= tokens) {
    return corrupt(fmt::format("{}: {}: asks for a token that is not there", gguf.path, key));
  }
  ids.push_back(*id);
  return {};
}

}  // namespace

Result<std::vector<std::string_view>> gguf_tokens(const Gguf& gguf) {
  return strings(gguf, "tokenizer.ggml.tokens", kMaxVocab);
}

Result<std::vector<std::int32_t>> gguf_token_types(const Gguf& gguf) {
  std::vector<std::int32_t> types;
  const auto* array = metadata_value<GgufArray>(gguf, "tokenizer.ggml.token_type");
  if (array == nullptr) return types;
  const std::string where = fmt::format("{}: tokenizer.ggml.token_type", gguf.path);
  LANNER_RETURN_IF_ERROR(check_count(*array, kMaxVocab, where));
  LANNER_ASSIGN_OR_RETURN(const auto values, gguf_integers(*array, where));
  types.reserve(values.size());
  for (const std::int64_t value : values) {
    if (value < 0 || value > 255) return corrupt(fmt::format("{}: holds {}", where, value));
    types.push_back(static_cast<std::int32_t>(value));
  }
  return types;
}

std::optional<std::int32_t> gguf_token_id(const Gguf& gguf, std::string_view name) {
  const std::string key = fmt::format("tokenizer.ggml.{}", name);
  if (const auto* id = metadata_value<std::uint64_t>(gguf, key)) {
    if (*id < static_cast<std::uint64_t>(kMaxVocab)) return static_cast<std::int32_t>(*id);
  }
  if (const auto* id = metadata_value<std::int64_t>(gguf, key)) {
    if (*id >= 0 && *id < kMaxVocab) return static_cast<std::int32_t>(*id);
  }
  return std::nullopt;  // some writers put -1 or 2^32 - 1 for "none"
}

Result<BpeVocabulary> gguf_bpe_vocabulary(const Gguf& gguf) {
  BpeVocabulary vocabulary;
  LANNER_ASSIGN_OR_RETURN(const auto tokens, gguf_tokens(gguf));
  LANNER_ASSIGN_OR_RETURN(const auto merges, strings(gguf, "tokenizer.ggml.merges", kMaxMerges));
  LANNER_ASSIGN_OR_RETURN(vocabulary.token_types, gguf_token_types(gguf));
  vocabulary.tokens.assign(tokens.begin(), tokens.end());
  vocabulary.merges.assign(merges.begin(), merges.end());
  if (const auto* pre = metadata_value<std::string_view>(gguf, "tokenizer.ggml.pre")) {
    vocabulary.pre_tokenizer = std::string(*pre);
  }
  vocabulary.add_prefix_space = flag_or(gguf, "tokenizer.ggml.add_space_prefix", false);
  if (const auto* add = metadata_value<bool>(gguf, "tokenizer.ggml.add_bos_token")) vocabulary.add_bos = *add;
  if (const auto* add = metadata_value<bool>(gguf, "tokenizer.ggml.add_eos_token")) vocabulary.add_eos = *add;
  vocabulary.bos_id = gguf_token_id(gguf, "bos_token_id");
  vocabulary.eos_id = gguf_token_id(gguf, "eos_token_id");
  return vocabulary;
}

Result<SentencePieceVocabulary> gguf_sentencepiece_vocabulary(const Gguf& gguf) {
  SentencePieceVocabulary vocabulary;
  LANNER_ASSIGN_OR_RETURN(vocabulary.model, read_pieces(gguf));
  const std::vector<SentencePiece>& pieces = vocabulary.model.pieces;
  SentencePieceRules& rules = vocabulary.rules;
  const auto bos = gguf_token_id(gguf, "bos_token_id").value_or(kDefaultBos);
  const auto eos = gguf_token_id(gguf, "eos_token_id").value_or(kDefaultEos);
  LANNER_ASSIGN_OR_RETURN(const auto tokens, gguf_tokens(gguf));
  for (std::size_t index = 0; index < pieces.size(); ++index) {
    const auto id = static_cast<std::int32_t>(index);
    const PieceType type = pieces[index].type;
    // BOS and EOS are special even in files that mark every token as normal.
    const bool special = type == PieceType::kControl || type == PieceType::kUnknown || id == bos || id == eos;
    if (tokens[index].empty() || (!special && type != PieceType::kUserDefined)) continue;
    const std::string& content = pieces[index].text;
    rules.added_tokens.push_back(
        {.id = id, .content = content, .special = special, .rstrip = strips_behind_markers(gguf, content)});
  }
  LANNER_RETURN_IF_ERROR(
      add_end(gguf, "tokenizer.ggml.add_bos_token", true, bos, pieces.size(), rules.ends.prefix_ids));
  LANNER_RETURN_IF_ERROR(
      add_end(gguf, "tokenizer.ggml.add_eos_token", false, eos, pieces.size(), rules.ends.suffix_ids));
  return vocabulary;
}

Result<std::shared_ptr<const Tokenizer>> gguf_tokenizer(const Gguf& gguf) {
  const auto* kind = metadata_value<std::string_view>(gguf, "tokenizer.ggml.model");
  if (kind == nullptr) return not_found(fmt::format("{}: tokenizer.ggml.model: is missing", gguf.path));
  if (*kind == "gpt2") {
    LANNER_ASSIGN_OR_RETURN(const BpeVocabulary vocabulary, gguf_bpe_vocabulary(gguf));
    return Tokenizer::from_bpe_vocabulary(vocabulary, gguf.path);
  }
  if (*kind == "llama") {
    LANNER_ASSIGN_OR_RETURN(SentencePieceVocabulary vocabulary, gguf_sentencepiece_vocabulary(gguf));
    return Tokenizer::from_sentencepiece(std::move(vocabulary.model), std::move(vocabulary.rules), gguf.path);
  }
  return unsupported(fmt::format(
      "{}: tokenizer.ggml.model: '{}' is not supported; this build reads 'gpt2' (byte-level BPE) and 'llama' "
      "(SentencePiece)",
      gguf.path, printable(*kind)));
}

}  // namespace lanner::model
