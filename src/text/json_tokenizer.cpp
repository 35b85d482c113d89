#include "text/json_tokenizer.h"

#include "text/rust_call.h"

namespace lanner {

Result<std::shared_ptr<const Tokenizer>> JsonTokenizer::make(std::string_view tokenizer_json) {
  LannerTokenizer* handle = nullptr;
  LannerBuffer error = {nullptr, 0};
  const std::int32_t code = lanner_tokenizer_from_json(to_slice(tokenizer_json), &handle, &error);
  // A file that makes the library panic is a bad file, not a broken promise of ours.
  LANNER_RETURN_IF_ERROR(take_error(code == LANNER_TEXT_INTERNAL ? LANNER_TEXT_CORRUPT : code, error));
  return std::shared_ptr<const Tokenizer>(new JsonTokenizer(handle));
}

Result<std::vector<std::int32_t>> JsonTokenizer::encode(std::string_view utf8, const EncodeOptions& options) const {
  LannerIds ids = {nullptr, 0};
  LannerBuffer error = {nullptr, 0};
  const std::int32_t code = lanner_tokenizer_encode(handle_.get(), to_slice(utf8), options.add_special_tokens,
                                                    options.parse_special, &ids, &error);
  LANNER_RETURN_IF_ERROR(take_error(code, error));
  std::vector<std::int32_t> copy(ids.data, ids.data + ids.size);
  lanner_ids_free(ids);
  return copy;
}

Result<std::string> JsonTokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  LannerBuffer text = {nullptr, 0};
  LannerBuffer error = {nullptr, 0};
  const std::int32_t code =
      lanner_tokenizer_decode(handle_.get(), ids.data(), ids.size(), skip_special_tokens, &text, &error);
  LANNER_RETURN_IF_ERROR(take_error(code, error));
  return take_buffer(text);
}

std::int32_t JsonTokenizer::vocab_size() const { return lanner_tokenizer_vocab_size(handle_.get()); }

std::optional<std::int32_t> JsonTokenizer::token_id(std::string_view piece) const {
  const std::int32_t id = lanner_tokenizer_token_id(handle_.get(), to_slice(piece));
  if (id < 0) return std::nullopt;
  return id;
}

Result<std::string> JsonTokenizer::piece(std::int32_t id) const {
  LannerBuffer piece = {nullptr, 0};
  LannerBuffer error = {nullptr, 0};
  const std::int32_t code = lanner_tokenizer_piece(handle_.get(), id, &piece, &error);
  LANNER_RETURN_IF_ERROR(take_error(code, error));
  return take_buffer(piece);
}

bool JsonTokenizer::is_special(std::int32_t id) const { return lanner_tokenizer_is_special(handle_.get(), id) != 0; }

bool JsonTokenizer::is_byte_run_token(std::int32_t id) const {
  if (lanner_tokenizer_joins_byte_runs(handle_.get()) == 0) return false;
  const Result<std::string> spelled = piece(id);
  return spelled.ok() && spelled->size() == 6 && spelled->starts_with("<0x") && spelled->ends_with('>');
}

}  // namespace lanner
