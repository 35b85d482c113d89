#include "text/detokenizer.h"

#include <span>
#include <string_view>
#include <utility>

#include "text/utf8.h"

namespace lanner {
namespace {

// Half a character takes at most a few tokens. A longer window means bytes that never form one.
constexpr std::size_t kMaxWindow = 24;
// Tokens that a tokenizer hides at the beginning of a text, one after the other, before that is given up.
constexpr std::size_t kMaxHidden = 1024;
// How many places are tried where a long window can be cut: no UTF-8 sequence is longer than 4 bytes.
constexpr std::size_t kCutsTried = 6;

/// Where the last U+FFFD begin, at most `most` of them.
std::size_t replacements_begin(std::string_view text, std::size_t most) {
  for (std::size_t found = 0; found < most && text.ends_with(kReplacementCharacter); ++found) {
    text.remove_suffix(kReplacementCharacter.size());
  }
  return text.size();
}

}  // namespace

IncrementalDetokenizer::IncrementalDetokenizer(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

Result<std::string> IncrementalDetokenizer::decode(std::size_t begin, std::size_t end) const {
  return tokenizer_->decode(std::span(window_).subspan(begin, end - begin), skip_special_);
}

Result<std::string> IncrementalDetokenizer::push(std::int32_t id) {
  if (id < 0) return invalid_argument("a token id is negative");
  // Tokens that say nothing must not fill the window: special ones that are skipped, and rows of the model's head
  // that have no token.
  if (skip_special_ && tokenizer_->is_special(id)) return std::string();
  if (!tokenizer_->piece(id).ok()) return std::string();
  window_.push_back(id);
  // A run of byte tokens is decoded as a whole, all or nothing: its text is not known before it ends.
  if (tokenizer_->is_byte_run_token(id)) return std::string();

  Result<std::string> text = decode(0, window_.size());
  if (!text.ok()) {
    window_.pop_back();
    return text;
  }
  // Only U+FFFD at the end can be the beginning of a character. Text that contradicts what was returned waits.
  const std::size_t safe_end = replacements_begin(*text, tokenizer_->replacements_at_risk());
  const bool half = safe_end < text->size();
  std::string fresh;
  if (safe_end > emitted_.size() && text->starts_with(emitted_)) {
    fresh = text->substr(emitted_.size(), safe_end - emitted_.size());
    emitted_ += fresh;
  }
  if (!half && !fresh.empty()) {
    slide_window();
  } else if (window_.size() > kMaxWindow) {
    shrink_window(*text);
  }
  return fresh;
}

// Everything is out: what was new becomes the context of what follows, and the old context goes.
void IncrementalDetokenizer::slide_window() {
  if (context_ > 0) {
    Result<std::string> rest = decode(context_, window_.size());
    // What the tokenizer hides at the beginning of a text, blanks, cannot be the context of what follows.
    if (!rest.ok() || (rest->empty() && window_.size() < kMaxHidden)) return;
    window_.erase(window_.begin(), window_.begin() + static_cast<std::ptrdiff_t>(context_));
    emitted_ = *std::move(rest);
  }
  context_ = window_.size();
}

// Cuts a window that does not complete where the texts of its two sides add up to the whole.
void IncrementalDetokenizer::shrink_window(const std::string& text) {
  for (std::size_t tried = 1; tried <= kCutsTried && tried < window_.size(); ++tried) {
    const std::size_t cut = window_.size() - tried;
    const Result<std::string> left = decode(0, cut);
    const Result<std::string> right = decode(cut, window_.size());
    // An empty right side would hide what its tokenizer does at the beginning of a text.
    if (!left.ok() || !right.ok() || right->empty() || left->size() > emitted_.size()) continue;
    if (*left + *right != text || !text.starts_with(emitted_)) continue;
    window_.erase(window_.begin(), window_.begin() + static_cast<std::ptrdiff_t>(cut));
    emitted_.erase(0, left->size());
    context_ = 0;
    return;
  }
}

std::string IncrementalDetokenizer::finish() {
  std::string rest;
  const Result<std::string> text = decode(0, window_.size());
  if (text.ok() && text->starts_with(emitted_)) rest = text->substr(emitted_.size());
  window_.clear();
  emitted_.clear();
  context_ = 0;
  return rest;
}

}  // namespace lanner
