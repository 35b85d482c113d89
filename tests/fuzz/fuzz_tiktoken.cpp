// Any bytes as a file of ranks, with the 256 single bytes in front or without: refused in one line, or a tokenizer
// whose ids give the text back.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "text/test_vocabulary.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  for (const std::string& front : {std::string(), lanner::testing::small_ranks()}) {
    lanner::TiktokenRules rules{.pattern = std::string(lanner::kQwenWords)};
    rules.added_tokens = {{.id = 4000000, .content = "<|im_end|>"}};
    const auto tokenizer = lanner::Tokenizer::from_tiktoken(front + std::string(file), std::move(rules), "fuzz");
    if (!tokenizer.ok()) {
      if (tokenizer.status().message().find('\n') != std::string::npos) std::abort();
      continue;
    }
    for (const std::string& text :
         {std::string("ababab Hello\n\n  123 \xE4\xBD\xA0<|im_end|>aaaaaa"), std::string(file)}) {
      const auto ids = (*tokenizer)->encode(text, {});
      if (!ids.ok()) continue;
      for (const std::int32_t id : *ids) {
        if (id < 0 || !(*tokenizer)->piece(id).ok()) std::abort();
      }
      if (*(*tokenizer)->decode(*ids, false) != text) std::abort();
    }
  }
  return 0;
}
