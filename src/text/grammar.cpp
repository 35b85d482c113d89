#include "text/grammar.h"

#include "core/check.h"
#include "text/rust_call.h"

namespace lanner {
namespace {

constexpr char kSpecialMark = '\xFF';  // no byte of UTF-8

}  // namespace

Status GrammarState::allowed(std::span<std::uint32_t> words) {
  LannerBuffer error = {nullptr, 0};
  const std::int32_t code = lanner_grammar_mask(handle_.get(), words.data(), words.size(), &error);
  return take_error(code, error);
}

Result<bool> GrammarState::accept(std::int32_t token) {
  LannerBuffer error = {nullptr, 0};
  std::int32_t ended = 0;
  const std::int32_t code = lanner_grammar_accept(handle_.get(), token, &ended, &error);
  LANNER_RETURN_IF_ERROR(take_error(code, error));
  return ended != 0;
}

Result<GrammarState> Grammar::begin() const {
  LannerBuffer error = {nullptr, 0};
  LannerGrammar* copy = nullptr;
  const std::int32_t code = lanner_grammar_copy(handle_.get(), &copy, &error);
  LANNER_RETURN_IF_ERROR(take_error(code, error));
  return GrammarState(GrammarHandle(copy));
}

Result<std::shared_ptr<const GrammarVocabulary>> GrammarVocabulary::make(std::span<const std::string> tokens,
                                                                         const std::vector<bool>& special,
                                                                         std::span<const std::int32_t> ends) {
  LANNER_CHECK(special.size() == tokens.size());
  std::string bytes;
  std::vector<std::uint32_t> sizes;
  sizes.reserve(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::size_t before = bytes.size();
    if (special[i] && !tokens[i].empty()) bytes += kSpecialMark;
    bytes += tokens[i];
    sizes.push_back(static_cast<std::uint32_t>(bytes.size() - before));
  }
  LannerBuffer error = {nullptr, 0};
  LannerVocabulary* handle = nullptr;
  const std::int32_t code =
      lanner_vocabulary_new(to_slice(bytes), sizes.data(), sizes.size(), ends.data(), ends.size(), &handle, &error);
  LANNER_RETURN_IF_ERROR(take_error(code, error));
  return std::shared_ptr<const GrammarVocabulary>(new GrammarVocabulary(Handle(handle)));
}

Result<std::shared_ptr<const Grammar>> GrammarVocabulary::compile(GrammarKind kind, std::string_view text) const {
  LannerBuffer error = {nullptr, 0};
  LannerGrammar* grammar = nullptr;
  const std::int32_t code =
      lanner_grammar_compile(handle_.get(), static_cast<std::int32_t>(kind), to_slice(text), &grammar, &error);
  LANNER_RETURN_IF_ERROR(take_error(code, error));
  return std::make_shared<const Grammar>(GrammarHandle(grammar));
}

}  // namespace lanner
