// Any bytes as a tokenizer.json: loading it, and using it when it loads, must end in a result or an error.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "text/detokenizer.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using lanner::Tokenizer;
  const auto tokenizer = Tokenizer::from_json({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!tokenizer.ok()) return 0;
  for (const bool parse_special : {true, false}) {
    const auto ids = (*tokenizer)
                         ->encode("Hello, W\xC3\xB6rld! 123\n\n  <s>\xE4\xBD\xA0\xF0\x9F\x98\x80</s>",
                                  {.add_special_tokens = true, .parse_special = parse_special});
    if (!ids.ok()) continue;
    lanner::IncrementalDetokenizer detokenizer(*tokenizer, parse_special);
    for (const std::int32_t id : *ids) {
      if (id < 0) std::abort();
      (void)detokenizer.push(id).ok();
    }
    (void)detokenizer.finish();
    (void)(*tokenizer)->decode(*ids, parse_special).ok();
  }
  for (const std::int32_t id : {-1, 0, 1, (*tokenizer)->vocab_size() - 1, (*tokenizer)->vocab_size()}) {
    (void)(*tokenizer)->piece(id).ok();
    (void)(*tokenizer)->is_special(id);
  }
  return 0;
}
