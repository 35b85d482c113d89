#pragma once
// Token ids to text while they are generated, one at a time.
//
// A character may be spread over several tokens, and what a token means can depend on its neighbours (SentencePiece
// tokenizers drop the blank in front of the first word). push() therefore returns only text that later tokens cannot
// change, never half a UTF-8 character, and holds the rest back. What all calls return, put together, is what
// Tokenizer::decode says of all ids at once.
//
//   IncrementalDetokenizer detokenizer(tokenizer, /*skip_special=*/true);
//   for (std::int32_t id : generated) { LANNER_ASSIGN_OR_RETURN(auto text, detokenizer.push(id)); send(text); }
//   send(detokenizer.finish());
//
// Ownership: shares the tokenizer. Threads: one at a time. Cost: a few tokens are decoded again at each push, however
// long the text is. Errors: push fails only for a negative id, and then nothing has changed.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lanner/status.h"
#include "text/tokenizer.h"

namespace lanner {

class IncrementalDetokenizer {
 public:
  IncrementalDetokenizer(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special);

  Result<std::string> push(std::int32_t id);
  /// What is still held back: half characters come out as U+FFFD. After it the object starts a new text.
  std::string finish();

 private:
  Result<std::string> decode(std::size_t begin, std::size_t end) const;
  void slide_window();
  void shrink_window(const std::string& text);

  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  // Invariants:
  // 1. text of the ids that left the window + decode(window_) is the text of all ids, as far as it is final;
  // 2. decode(window_) begins with emitted_, and exactly that part of it has been returned.
  std::vector<std::int32_t> window_;
  std::string emitted_;
  std::size_t context_ = 0;  // window_[0, context_) was complete already when the window last slid
};

}  // namespace lanner
