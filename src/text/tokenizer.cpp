#include "text/tokenizer.h"

#include "text/json_tokenizer.h"
#include "text/sentencepiece_tokenizer.h"
#include "text/tiktoken_tokenizer.h"

namespace lanner {
namespace {

using Made = Result<std::shared_ptr<const Tokenizer>>;

Made named(Made made, std::string_view origin) {
  if (!made.ok()) return with_context(made.status(), origin);
  return made;
}

}  // namespace

Made Tokenizer::from_json(std::string_view tokenizer_json, std::string_view origin) {
  return named(JsonTokenizer::make(tokenizer_json), origin);
}

Made Tokenizer::from_bpe_vocabulary(const BpeVocabulary& vocabulary, std::string_view origin) {
  const Result<std::string> json = bpe_vocabulary_to_json(vocabulary);
  if (!json.ok()) return with_context(json.status(), origin);
  return from_json(*json, origin);
}

Made Tokenizer::from_sentencepiece(SentencePieceModel model, SentencePieceRules rules, std::string_view origin) {
  return named(SentencePieceTokenizer::make(std::move(model), std::move(rules)), origin);
}

Made Tokenizer::from_tiktoken(std::string_view ranks_file, TiktokenRules rules, std::string_view origin) {
  return named(TiktokenTokenizer::make(ranks_file, std::move(rules)), origin);
}

}  // namespace lanner
