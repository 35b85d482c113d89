// Any bytes as a tokenizer.model: refused in one line, or a tokenizer that takes any text and any ids.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace {

void use(const std::shared_ptr<const lanner::Tokenizer>& tokenizer, std::string_view text, bool parse_special) {
  const auto ids = tokenizer->encode(text, {.add_special_tokens = true, .parse_special = parse_special});
  if (!ids.ok()) return;
  lanner::IncrementalDetokenizer detokenizer(tokenizer, parse_special);
  std::string streamed;
  for (const std::int32_t id : *ids) {
    if (id < 0 || id >= tokenizer->vocab_size()) std::abort();
    streamed += *detokenizer.push(id);
  }
  streamed += detokenizer.finish();
  if (streamed != *tokenizer->decode(*ids, parse_special)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  const auto model = lanner::parse_sentencepiece_model(file);
  if (!model.ok()) {
    if (model.status().message().find('\n') != std::string::npos) std::abort();
    return 0;
  }
  for (const auto dummy_prefix : {lanner::DummyPrefix::kEveryStretch, lanner::DummyPrefix::kTextOnly}) {
    lanner::SentencePieceRules rules;
    rules.dummy_prefix = dummy_prefix;
    rules.added_tokens = {{.id = 1, .content = "<s>"},
                          {.id = 4000000, .content = "\n\n", .special = false, .rstrip = true}};
    const auto tokenizer = lanner::Tokenizer::from_sentencepiece(*model, std::move(rules), "fuzz");
    if (!tokenizer.ok()) continue;
    use(*tokenizer, "Hello, W\xC3\xB6rld! 123\n\n  <s>\xE4\xBD\xA0\xF0\x9F\x98\x80  <s> aaaaaaaaaaaaaaaa", true);
    // The file's own text reaches the pieces that it names.
    std::string own;
    for (const lanner::SentencePiece& piece : model->pieces) own += piece.text;
    use(*tokenizer, own.substr(0, own.size() < 4096 ? own.size() : 0), false);
    for (const std::int32_t id : {-1, 0, 1, (*tokenizer)->vocab_size() - 1, (*tokenizer)->vocab_size()}) {
      (void)(*tokenizer)->piece(id).ok();
      (void)(*tokenizer)->is_special(id);
    }
  }
  return 0;
}
