#include "text/tokenizer.h"

#include <fmt/format.h>

#include "text/lanner_text.h"
#include "text/rust_call.h"

namespace lanner {
namespace {

bool is_byte_piece(std::string_view piece) {
  return piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
}

}  // namespace

void Tokenizer::Release::operator()(LannerTokenizer* handle) const { lanner_tokenizer_free(handle); }

Result<std::shared_ptr<const Tokenizer>> Tokenizer::from_json(std::string_view tokenizer_json,
                                                              std::string_view origin) {
  LannerTokenizer* handle = nullptr;
  LannerBuffer error = {nullptr, 0};
  const std::int32_t code = lanner_tokenizer_from_json(to_slice(tokenizer_json), &handle, &error);
  if (code == LANNER_TEXT_OK) return std::shared_ptr<const Tokenizer>(new Tokenizer(handle));
  // A file that makes the library panic is a bad file, not a broken promise of ours.
  const Status status = take_error(code == LANNER_TEXT_INTERNAL ? LANNER_TEXT_CORRUPT : code, error);
  return with_context(status, origin);
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::from_bpe_vocabulary(const BpeVocabulary& vocabulary,
                                                                        std::string_view origin) {
  Result<std::string> json = bpe_vocabulary_to_json(vocabulary);
  if (!json.ok()) return with_context(json.status(), origin);
  return from_json(*json, origin);
}

Result<std::vector<std::int32_t>> Tokenizer::encode(std::string_view utf8, const EncodeOptions& options) const {
  LannerIds ids = {nullptr, 0};
  LannerBuffer error = {nullptr, 0};
  const std::int32_t code = lanner_tokenizer_encode(handle_.get(), to_slice(utf8), options.add_special_tokens,
                                                    options.parse_special, &ids, &error);
  LANNER_RETURN_IF_ERROR(take_error(code, error));
  std::vector<std::int32_t> copy(ids.data, ids.data + ids.size);
  lanner_ids_free(ids);
  return copy;
}

Result<std::string> Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  LannerBuffer text = {nullptr, 0};
  LannerBuffer error = {nullptr, 0};
  const std::int32_t code =
      lanner_tokenizer_decode(handle_.get(), ids.data(), ids.size(), skip_special_tokens, &text, &error);
  LANNER_RETURN_IF_ERROR(take_error(code, error));
  return take_buffer(text);
}

std::int32_t Tokenizer::vocab_size() const { return lanner_tokenizer_vocab_size(handle_.get()); }

std::optional<std::int32_t> Tokenizer::token_id(std::string_view piece) const {
  const std::int32_t id = lanner_tokenizer_token_id(handle_.get(), to_slice(piece));
  if (id < 0) return std::nullopt;
  return id;
}

Result<std::string> Tokenizer::piece(std::int32_t id) const {
  LannerBuffer piece = {nullptr, 0};
  LannerBuffer error = {nullptr, 0};
  const std::int32_t code = lanner_tokenizer_piece(handle_.get(), id, &piece, &error);
  LANNER_RETURN_IF_ERROR(take_error(code, error));
  return take_buffer(piece);
}

bool Tokenizer::is_special(std::int32_t id) const { return lanner_tokenizer_is_special(handle_.get(), id) != 0; }

bool Tokenizer::is_byte_run_token(std::int32_t id) const {
  if (lanner_tokenizer_joins_byte_runs(handle_.get()) == 0) return false;
  const Result<std::string> spelled = piece(id);
  return spelled.ok() && is_byte_piece(*spelled);
}

}  // namespace lanner
