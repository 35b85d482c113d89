#include "text/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <exception>

#include "text/utf8.h"

namespace lanner {
namespace {

using Processor = sentencepiece::SentencePieceProcessor;

constexpr std::size_t kMaxTextBytes = 16 << 20;
constexpr std::string_view kBlankSymbol = "\xE2\x96\x81";  // ▁

Status from_library(const sentencepiece::util::Status& status, StatusCode code) {
  if (status.ok()) return {};
  return {code, fmt::format("SentencePiece: {}", status.message())};
}

/// The library reports through its Status, but its containers and tries may throw.
template <typename Call>
Status guarded(StatusCode code, Call&& call) {
  try {
    return from_library(call(), code);
  } catch (const std::exception& error) {
    return {code, fmt::format("SentencePiece: {}", error.what())};
  }
}

Result<std::unique_ptr<Processor>> load_processor(const SentencePieceModel& model) {
  auto processor = std::make_unique<Processor>();
  const std::string file = serialize_sentencepiece_model(model);
  LANNER_RETURN_IF_ERROR(guarded(StatusCode::kCorrupt, [&] { return processor->LoadFromSerializedProto(file); }));
  return processor;
}

/// Newer versions of the library than the one in Debian 12 spell the character NUL as its byte, even where it is a
/// piece.
void hide_nul_piece(SentencePieceModel& model) {
  if (!model.byte_fallback) return;
  for (SentencePiece& piece : model.pieces) {
    if (piece.text == std::string_view("\0", 1)) piece = {std::string("\0hidden", 7), 0, PieceType::kControl};
  }
}

void append_with_blanks(std::string& text, std::string_view piece) {
  for (std::size_t at = 0; at < piece.size();) {
    const std::size_t blank = piece.find(kBlankSymbol, at);
    text += piece.substr(at, blank - at);
    if (blank == std::string_view::npos) return;
    text += ' ';
    at = blank + kBlankSymbol.size();
  }
}

/// Bytes as text: what is no character becomes one U+FFFD a byte.
void append_bytes(std::string& text, std::string& bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t size = first_character(std::string_view(bytes).substr(at)).bytes;
    text += size == 0 ? kReplacementCharacter : std::string_view(bytes).substr(at, size);
    at += size == 0 ? 1 : size;
  }
  bytes.clear();
}

}  // namespace

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

Result<std::shared_ptr<const Tokenizer>> SentencePieceTokenizer::make(SentencePieceModel model,
                                                                      SentencePieceRules rules) {
  const std::shared_ptr<SentencePieceTokenizer> made(new SentencePieceTokenizer());
  LANNER_RETURN_IF_ERROR(made->load(std::move(model), std::move(rules)));
  return std::shared_ptr<const Tokenizer>(made);
}

Status SentencePieceTokenizer::load(SentencePieceModel model, SentencePieceRules rules) {
  LANNER_RETURN_IF_ERROR(check_sentencepiece_model(model));
  LANNER_ASSIGN_OR_RETURN(added_, AddedTokens::make(std::move(rules.added_tokens)));
  rules_ = std::move(rules);
  const auto size = static_cast<std::int32_t>(model.pieces.size());
  for (const auto* ids : {&rules_.ends.prefix_ids, &rules_.ends.suffix_ids}) {
    for (const std::int32_t id : *ids) {
      if (id < 0 || (id >= size && added_.find(id) == nullptr))
        return corrupt(fmt::format("no token has the id {}", id));
    }
  }
  if (rules_.dummy_prefix == DummyPrefix::kNever) model.add_dummy_prefix = false;
  drops_leading_blanks_ = model.remove_extra_blanks;
  drops_leading_blank_ = model.add_dummy_prefix || model.remove_extra_blanks;
  pieces_ = model.pieces;
  hide_nul_piece(model);
  LANNER_ASSIGN_OR_RETURN(with_prefix_, load_processor(model));
  if (rules_.dummy_prefix == DummyPrefix::kTextOnly && model.add_dummy_prefix) {
    model.add_dummy_prefix = false;
    LANNER_ASSIGN_OR_RETURN(without_prefix_, load_processor(model));
  }
  // A piece may be there twice, as a byte and spelled out: the reserved one counts, as in the library.
  for (const bool reserved : {true, false}) {
    for (std::size_t id = 0; id < pieces_.size(); ++id) {
      if (is_reserved(pieces_[id].type) == reserved) {
        by_text_.emplace(pieces_[id].text, static_cast<std::int32_t>(id));
      }
    }
  }
  return {};
}

Status SentencePieceTokenizer::encode_stretch(std::string_view text, bool at_beginning,
                                              std::vector<std::int32_t>& ids) const {
  const bool begins_blank = text.starts_with(' ') || text.starts_with(kBlankSymbol);
  const bool plain = without_prefix_ != nullptr && (!at_beginning || begins_blank);
  const Processor& processor = plain ? *without_prefix_ : *with_prefix_;
  std::vector<int> part;
  LANNER_RETURN_IF_ERROR(guarded(StatusCode::kInternal, [&] { return processor.Encode(text, &part); }));
  ids.insert(ids.end(), part.begin(), part.end());
  return {};
}

Result<std::vector<std::int32_t>> SentencePieceTokenizer::encode(std::string_view utf8,
                                                                 const EncodeOptions& options) const {
  LANNER_RETURN_IF_ERROR(check_text(utf8, kMaxTextBytes));
  std::vector<std::int32_t> ids;
  for (const TextStretch& stretch : added_.split(utf8, options.parse_special)) {
    if (stretch.token != nullptr) {
      ids.push_back(stretch.token->id);
    } else {
      LANNER_RETURN_IF_ERROR(encode_stretch(stretch.text, stretch.text.data() == utf8.data(), ids));
    }
  }
  if (options.add_special_tokens) rules_.ends.put_around(ids);
  return ids;
}

Result<std::string> SentencePieceTokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  std::string bytes;  // of the run of byte pieces that is going on
  bool dropped = false;
  for (const std::int32_t id : ids) {
    if (id < 0) return invalid_argument(fmt::format("token id {} is negative", id));
    if (skip_special_tokens && is_special(id)) continue;
    const AddedToken* added = added_.find(id);
    const SentencePiece* piece = added == nullptr ? model_piece(id) : nullptr;
    if (added == nullptr && piece == nullptr) continue;
    if (piece != nullptr && piece->type == PieceType::kByte) {
      bytes += static_cast<char>(byte_of_piece(piece->text));
      continue;
    }
    append_bytes(text, bytes);
    if (added != nullptr) {
      text += added->content;
      continue;
    }
    std::string_view spelled = piece->text;
    if (text.empty() && drops_leading_blank_ && (drops_leading_blanks_ || !dropped) &&
        spelled.starts_with(kBlankSymbol)) {
      spelled.remove_prefix(kBlankSymbol.size());
      dropped = true;
    }
    append_with_blanks(text, spelled);
  }
  append_bytes(text, bytes);
  return text;
}

const SentencePiece* SentencePieceTokenizer::model_piece(std::int32_t id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= pieces_.size()) return nullptr;
  return &pieces_[static_cast<std::size_t>(id)];
}

std::int32_t SentencePieceTokenizer::vocab_size() const {
  return std::max(static_cast<std::int32_t>(pieces_.size()), added_.end_id());
}

std::optional<std::int32_t> SentencePieceTokenizer::token_id(std::string_view piece) const {
  if (const AddedToken* added = added_.find(piece)) return added->id;
  const auto found = by_text_.find(piece);
  if (found == by_text_.end()) return std::nullopt;
  return found->second;
}

Result<std::string> SentencePieceTokenizer::piece(std::int32_t id) const {
  if (const AddedToken* added = added_.find(id)) return added->content;
  if (const SentencePiece* found = model_piece(id)) return found->text;
  return invalid_argument(fmt::format("no token has the id {}", id));
}

bool SentencePieceTokenizer::is_special(std::int32_t id) const {
  if (const AddedToken* added = added_.find(id)) return added->special;
  const SentencePiece* found = model_piece(id);
  return found != nullptr && (found->type == PieceType::kControl || found->type == PieceType::kUnknown);
}

}  // namespace lanner
