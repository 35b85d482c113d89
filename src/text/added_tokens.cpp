#include "text/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/utf8.h"

namespace lanner {
namespace {

constexpr std::size_t kMaxContentBytes = 1024;
constexpr std::size_t kMaxTokens = 1 << 20;
constexpr std::int32_t kMaxId = (1 << 24) - 1;

std::uint64_t edge(std::uint32_t node, char byte) {
  return (static_cast<std::uint64_t>(node) << 8) | static_cast<unsigned char>(byte);
}

/// Where the character that ends before `end` begins; the text is UTF-8.
std::size_t character_before(std::string_view text, std::size_t end) {
  std::size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
  return at;
}

bool is_blank_at(std::string_view text, std::size_t at) {
  return is_unicode_blank(first_character(text.substr(at)).code);
}

/// Letters, digits and _; beyond ASCII everything but blanks and the punctuation blocks counts as a letter.
bool is_word_at(std::string_view text, std::size_t at) {
  const std::uint32_t code = first_character(text.substr(at)).code;
  if (code < 0x80) {
    const auto lower = code | 0x20U;
    return (code >= '0' && code <= '9') || (lower >= 'a' && lower <= 'z') || code == '_';
  }
  const bool punctuation =
      (code >= 0x2000 && code <= 0x206F) || (code >= 0x3000 && code <= 0x303F) || (code >= 0xFF00 && code <= 0xFF0F);
  return !punctuation && !is_unicode_blank(code);
}

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  if (begin > 0 && is_word_at(text, character_before(text, begin))) return false;
  return end == text.size() || !is_word_at(text, end);
}

}  // namespace

Result<AddedTokens> AddedTokens::make(std::vector<AddedToken> tokens) {
  if (tokens.size() > kMaxTokens) {
    return corrupt(fmt::format("{} added tokens, allowed are {}", tokens.size(), kMaxTokens));
  }
  AddedTokens made;
  made.ends_.assign(1, -1);
  made.tokens_ = std::move(tokens);
  for (std::size_t index = 0; index < made.tokens_.size(); ++index) {
    const AddedToken& token = made.tokens_[index];
    if (token.id < 0 || token.id > kMaxId) return corrupt(fmt::format("an added token has the id {}", token.id));
    if (token.content.empty() || token.content.size() > kMaxContentBytes) {
      return corrupt(fmt::format("added token {} has {} bytes, allowed are 1 to {}", token.id, token.content.size(),
                                 kMaxContentBytes));
    }
    if (utf8_prefix(token.content) != token.content.size()) {
      return corrupt(fmt::format("added token {} is not UTF-8", token.id));
    }
    if (!made.by_id_.emplace(token.id, index).second) {
      return corrupt(fmt::format("two added tokens have the id {}", token.id));
    }
    const auto [place, inserted] = made.by_content_.emplace(token.content, index);
    if (!inserted) {
      return corrupt(fmt::format("added tokens {} and {} are the same", made.tokens_[place->second].id, token.id));
    }
    made.end_id_ = std::max(made.end_id_, token.id + 1);
    made.begins_[static_cast<unsigned char>(token.content.front())] = true;
    std::uint32_t node = 0;
    for (const char byte : token.content) {
      const auto [next, fresh] = made.edges_.emplace(edge(node, byte), static_cast<std::uint32_t>(made.ends_.size()));
      if (fresh) made.ends_.push_back(-1);
      node = next->second;
    }
    made.ends_[node] = static_cast<std::int32_t>(index);
  }
  return made;
}

const AddedToken* AddedTokens::longest_at(std::string_view text, Place place, bool parse_special) const {
  const AddedToken* longest = nullptr;
  std::uint32_t node = 0;
  for (std::size_t end = place.at; end < text.size(); ++end) {
    const auto next = edges_.find(edge(node, text[end]));
    if (next == edges_.end()) break;
    node = next->second;
    if (ends_[node] < 0) continue;
    const AddedToken& token = tokens_[static_cast<std::size_t>(ends_[node])];
    if ((token.special && !parse_special) || (token.only_behind && !place.behind_token)) continue;
    if (token.single_word && !stands_alone(text, place.at, end + 1)) continue;
    longest = &token;
  }
  return longest;
}

std::vector<TextStretch> AddedTokens::split(std::string_view text, bool parse_special) const {
  std::vector<TextStretch> stretches;
  if (tokens_.empty()) {
    if (!text.empty()) stretches.push_back({text, nullptr});
    return stretches;
  }
  std::size_t begin = 0;  // of the ordinary text that has not been put out
  std::size_t at = 0;
  while (at < text.size()) {
    const Place place = {at, at == begin && !stretches.empty()};
    const AddedToken* token =
        begins_[static_cast<unsigned char>(text[at])] ? longest_at(text, place, parse_special) : nullptr;
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t left = at;
    std::size_t right = at + token->content.size();
    if (token->lstrip) {
      while (left > begin && is_blank_at(text, character_before(text, left))) left = character_before(text, left);
    }
    if (token->rstrip) {
      while (right < text.size() && is_blank_at(text, right)) right += first_character(text.substr(right)).bytes;
    }
    if (left > begin) stretches.push_back({text.substr(begin, left - begin), nullptr});
    stretches.push_back({text.substr(left, right - left), token});
    begin = at = right;
  }
  if (begin < text.size()) stretches.push_back({text.substr(begin), nullptr});
  return stretches;
}

const AddedToken* AddedTokens::find(std::int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

}  // namespace lanner
