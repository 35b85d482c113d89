#include "text/tiktoken_tokenizer.h"

#include <fmt/format.h>

#include <charconv>
#include <queue>

#include "text/byte_level.h"
#include "text/rust_call.h"
#include "text/utf8.h"

namespace lanner {
namespace {

constexpr std::size_t kMaxTextBytes = 64 << 20;
constexpr std::size_t kMaxTokenBytes = 4096;
constexpr std::int32_t kMaxRank = (1 << 24) - 1;

int base64_digit(char digit) {
  if (digit >= 'A' && digit <= 'Z') return digit - 'A';
  if (digit >= 'a' && digit <= 'z') return digit - 'a' + 26;
  if (digit >= '0' && digit <= '9') return digit - '0' + 52;
  if (digit == '+') return 62;
  return digit == '/' ? 63 : -1;
}

/// The bytes, or nothing when the text is not base64 with its padding.
std::optional<std::string> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  text.remove_suffix(padding);
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char digit : text) {
    const int value = base64_digit(digit);
    if (value < 0) return std::nullopt;
    bits = (bits << 6) | static_cast<std::uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>((bits >> count) & 0xFF);
  }
  return bytes;
}

/// Two neighbours that are a token together.
struct Pair {
  std::int32_t rank;
  std::size_t left;   // where the left one begins
  std::size_t bytes;  // of both: when one has changed since, they are others
};

struct LaterPair {
  bool operator()(const Pair& a, const Pair& b) const { return a.rank != b.rank ? a.rank > b.rank : a.left > b.left; }
};

}  // namespace

Result<std::shared_ptr<const Tokenizer>> TiktokenTokenizer::make(std::string_view ranks_file, TiktokenRules rules) {
  const std::shared_ptr<TiktokenTokenizer> made(new TiktokenTokenizer());
  LANNER_RETURN_IF_ERROR(made->load(ranks_file, std::move(rules)));
  return std::shared_ptr<const Tokenizer>(made);
}

Status TiktokenTokenizer::add_line(std::string_view line, std::size_t number) {
  const auto wrong = [&](std::string_view why) { return corrupt(fmt::format("line {} {}", number, why)); };
  const std::size_t blank = line.find(' ');
  if (blank == std::string_view::npos) return wrong("is not a token in base64, a blank and its rank");
  const std::string_view digits = line.substr(blank + 1);
  std::int32_t rank = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
  if (error != std::errc() || end != digits.data() + digits.size() || rank < 0 || rank > kMaxRank) {
    return wrong(fmt::format("has no rank from 0 to {}", kMaxRank));
  }
  if (blank > 2 * kMaxTokenBytes) return wrong(fmt::format("has a token of more than {} bytes", kMaxTokenBytes));
  std::optional<std::string> bytes = from_base64(line.substr(0, blank));
  if (!bytes || bytes->empty()) return wrong("has a token that is not base64");
  const auto [place, fresh_rank] = bytes_.emplace(rank, *std::move(bytes));
  if (!fresh_rank) return wrong(fmt::format("has rank {}, which another token has", rank));
  const auto [other, fresh] = ranks_.emplace(place->second, rank);
  if (!fresh) return wrong(fmt::format("has the token of rank {} again", other->second));
  longest_ = std::max(longest_, place->second.size());
  end_rank_ = std::max(end_rank_, rank + 1);
  return {};
}

Status TiktokenTokenizer::load(std::string_view ranks_file, TiktokenRules rules) {
  std::size_t number = 0;
  while (!ranks_file.empty()) {
    const std::size_t end = std::min(ranks_file.find('\n'), ranks_file.size());
    std::string_view line = ranks_file.substr(0, end);
    ranks_file.remove_prefix(std::min(end + 1, ranks_file.size()));
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) LANNER_RETURN_IF_ERROR(add_line(line, number));
  }
  for (int byte = 0; byte < 256; ++byte) {
    const char single = static_cast<char>(byte);
    if (rank({&single, 1}) < 0) return corrupt(fmt::format("has no token for the byte 0x{:02X}", byte));
  }
  LANNER_ASSIGN_OR_RETURN(added_, AddedTokens::make(std::move(rules.added_tokens)));
  rules_ = std::move(rules);
  for (const auto* ids : {&rules_.ends.prefix_ids, &rules_.ends.suffix_ids}) {
    for (const std::int32_t id : *ids) LANNER_RETURN_IF_ERROR(piece(id).status());
  }
  LannerWords* words = nullptr;
  LannerBuffer error = {nullptr, 0};
  LANNER_RETURN_IF_ERROR(take_error(lanner_words_compile(to_slice(rules_.pattern), &words, &error), error));
  words_.reset(words);
  return {};
}

std::int32_t TiktokenTokenizer::rank(std::string_view bytes) const {
  if (bytes.size() > longest_) return -1;
  const auto found = ranks_.find(bytes);
  return found == ranks_.end() ? -1 : found->second;
}

void TiktokenTokenizer::encode_word(std::string_view word, std::vector<std::int32_t>& ids) const {
  if (const std::int32_t whole = rank(word); whole >= 0) {
    ids.push_back(whole);
    return;
  }
  // A symbol is named by where it begins. next[at] is where it ends; before[at] is where its left neighbour begins.
  std::vector<std::size_t> next(word.size());
  std::vector<std::size_t> before(word.size() + 1);
  std::priority_queue<Pair, std::vector<Pair>, LaterPair> pairs;
  const auto offer = [&](std::size_t left) {
    const std::size_t right = next[left];
    if (right >= word.size()) return;
    const std::size_t bytes = next[right] - left;
    if (const std::int32_t both = rank(word.substr(left, bytes)); both >= 0) pairs.push({both, left, bytes});
  };
  for (std::size_t at = 0; at < word.size(); ++at) {
    next[at] = at + 1;
    before[at + 1] = at;
  }
  for (std::size_t at = 0; at + 1 < word.size(); ++at) offer(at);
  while (!pairs.empty()) {
    const Pair pair = pairs.top();
    pairs.pop();
    const std::size_t right = next[pair.left];
    // next is 0 where a symbol went into its left neighbour.
    if (right == 0 || right >= word.size() || next[right] - pair.left != pair.bytes) continue;
    const std::size_t end = next[right];
    next[right] = 0;
    next[pair.left] = end;
    before[end] = pair.left;
    offer(pair.left);
    if (pair.left > 0) offer(before[pair.left]);
  }
  for (std::size_t at = 0; at < word.size(); at = next[at]) ids.push_back(rank(word.substr(at, next[at] - at)));
}

Status TiktokenTokenizer::encode_stretch(std::string_view text, std::vector<std::int32_t>& ids) const {
  LannerIds ends = {nullptr, 0};
  LannerBuffer error = {nullptr, 0};
  LANNER_RETURN_IF_ERROR(take_error(lanner_words_split(words_.get(), to_slice(text), &ends, &error), error));
  std::size_t begin = 0;
  for (const std::int32_t end : std::span(ends.data, ends.size)) {
    const auto stop = static_cast<std::size_t>(end);
    encode_word(text.substr(begin, stop - begin), ids);
    begin = stop;
  }
  lanner_ids_free(ends);
  return {};
}

Result<std::vector<std::int32_t>> TiktokenTokenizer::encode(std::string_view utf8, const EncodeOptions& options) const {
  LANNER_RETURN_IF_ERROR(check_text(utf8, kMaxTextBytes));
  std::string composed;
  if (rules_.normalize_nfc) {
    LannerBuffer text = {nullptr, 0};
    LannerBuffer error = {nullptr, 0};
    LANNER_RETURN_IF_ERROR(take_error(lanner_text_nfc(to_slice(utf8), &text, &error), error));
    composed = take_buffer(text);
    utf8 = composed;
  }
  std::vector<std::int32_t> ids;
  for (const TextStretch& stretch : added_.split(utf8, options.parse_special)) {
    if (stretch.token != nullptr) {
      ids.push_back(stretch.token->id);
    } else {
      LANNER_RETURN_IF_ERROR(encode_stretch(stretch.text, ids));
    }
  }
  if (options.add_special_tokens) rules_.ends.put_around(ids);
  return ids;
}

Result<std::string> TiktokenTokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  std::string bytes;
  for (const std::int32_t id : ids) {
    if (id < 0) return invalid_argument(fmt::format("token id {} is negative", id));
    if (const AddedToken* added = added_.find(id)) {
      if (skip_special_tokens && added->special) continue;
      append_lossy(text, bytes);
      bytes.clear();
      text += added->content;
    } else if (const auto found = bytes_.find(id); found != bytes_.end()) {
      bytes += found->second;
    }
  }
  append_lossy(text, bytes);
  return text;
}

std::int32_t TiktokenTokenizer::vocab_size() const { return std::max(end_rank_, added_.end_id()); }

std::optional<std::int32_t> TiktokenTokenizer::token_id(std::string_view piece) const {
  if (const AddedToken* added = added_.find(piece)) return added->id;
  const std::optional<std::string> bytes = read_spelled_bytes(piece);
  const std::int32_t found = bytes ? rank(*bytes) : -1;
  if (found < 0) return std::nullopt;
  return found;
}

Result<std::string> TiktokenTokenizer::piece(std::int32_t id) const {
  if (const AddedToken* added = added_.find(id)) return added->content;
  if (const auto found = bytes_.find(id); found != bytes_.end()) return spell_bytes(found->second);
  return invalid_argument(fmt::format("no token has the id {}", id));
}

bool TiktokenTokenizer::is_special(std::int32_t id) const {
  const AddedToken* added = added_.find(id);
  return added != nullptr && added->special;
}

}  // namespace lanner
