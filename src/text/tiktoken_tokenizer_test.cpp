#include "text/tiktoken_tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>

#include "text/byte_level.h"
#include "text/detokenizer.h"
#include "text/test_vocabulary.h"

namespace lanner {
namespace {

using Ids = std::vector<std::int32_t>;
using testing::small_ranks;

Result<std::shared_ptr<const Tokenizer>> open(const std::string& ranks) {
  TiktokenRules rules{.pattern = std::string(kQwenWords)};
  rules.added_tokens = {{.id = 300, .content = "<|im_end|>"}};
  return Tokenizer::from_tiktoken(ranks, std::move(rules), "tiny.tiktoken");
}

std::shared_ptr<const Tokenizer> make(const std::string& more = "") {
  auto tokenizer = open(small_ranks() + more);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

TEST(TiktokenTokenizer, EncodesAndDecodes) {
  const auto tokenizer = make();
  EXPECT_EQ(*tokenizer->encode("abab<|im_end|>b", {}), (Ids{256, 256, 300, 'b'}));
  EXPECT_EQ(tokenizer->encode("<|im_end|>", {.parse_special = false})->size(), 10U);
  EXPECT_EQ(*tokenizer->encode("", {}), Ids{});
  EXPECT_EQ(*tokenizer->decode(Ids{256, 300, 0xE4, 0xBD, 0xA0, 9999}, true), "ab你");
  EXPECT_EQ(*tokenizer->decode(Ids{0xE4, 300, 0xBD}, false), "\xEF\xBF\xBD<|im_end|>\xEF\xBF\xBD");
  EXPECT_EQ(tokenizer->decode(Ids{-1}, true).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(tokenizer->encode("a\xFF", {}).status().message(), "the text is not UTF-8 at byte 1");
}

TEST(TiktokenTokenizer, TheLowestRankGoesFirstAndTheLeftmostOfEquals) {
  const std::string bytes = small_ranks().substr(0, small_ranks().size() - std::string_view("YWI= 256\n").size());
  const auto tokenizer = open(bytes + "YmE= 256\nYWI= 257\nYWJh 258\nY2M= 259\n");  // ba, ab, aba, cc
  ASSERT_TRUE(tokenizer.ok());
  // a b a b a: "ba" twice first, then "aba" on the left.
  EXPECT_EQ(*(*tokenizer)->encode("ababa", {}), (Ids{258, 256}));
  EXPECT_EQ(*(*tokenizer)->encode("aba", {}), (Ids{258}));
  EXPECT_EQ(*(*tokenizer)->encode("ccc", {}), (Ids{259, 'c'}));
}

TEST(TiktokenTokenizer, SpellsPiecesAsGpt2Does) {
  const auto tokenizer = make();
  EXPECT_EQ(*tokenizer->piece(' '), "Ġ");
  EXPECT_EQ(tokenizer->token_id("Ġ"), ' ');
  EXPECT_EQ(*tokenizer->piece(0xFF), testing::byte_piece(0xFF));
  EXPECT_EQ(tokenizer->token_id("ab"), 256);
  EXPECT_EQ(tokenizer->token_id("<|im_end|>"), 300);
  EXPECT_EQ(tokenizer->token_id("你"), std::nullopt);
  EXPECT_EQ(tokenizer->piece(299).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(tokenizer->vocab_size(), 301);
  EXPECT_TRUE(tokenizer->is_special(300));
  EXPECT_FALSE(tokenizer->is_special(256));
  for (int byte = 0; byte < 256; ++byte) {
    const std::string single(1, static_cast<char>(byte));
    EXPECT_EQ(spell_bytes(single), testing::byte_piece(byte));
    EXPECT_EQ(read_spelled_bytes(spell_bytes(single)), single);
  }
}

TEST(TiktokenTokenizer, StreamsWholeCharacters) {
  IncrementalDetokenizer detokenizer(make(), true);
  EXPECT_EQ(*detokenizer.push(0xE4), "");
  EXPECT_EQ(*detokenizer.push(0xBD), "");
  EXPECT_EQ(*detokenizer.push(0xA0), "你");
  EXPECT_EQ(*detokenizer.push(256), "ab");
}

TEST(TiktokenTokenizer, LongWordsAreNotQuadratic) {
  const auto tokenizer = make();
  const auto started = std::chrono::steady_clock::now();
  const auto ids = tokenizer->encode(std::string(2'000'000, 'b') + "a", {});
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(ids->size(), 2'000'001U);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  EXPECT_LT(seconds.count(), 20.0);
}

TEST(TiktokenTokenizer, RefusesFilesThatAreNoRanks) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "has no token for the byte 0x00"},
      {"AA==", "line 1 is not a token in base64, a blank and its rank"},
      {"AA== x", "line 1 has no rank from 0 to 16777215"},
      {"AA== -1", "line 1 has no rank from 0 to 16777215"},
      {"AA== 99999999999999", "line 1 has no rank from 0 to 16777215"},
      {"AA== 1 ", "line 1 has no rank from 0 to 16777215"},
      {"A 1", "line 1 has a token that is not base64"},
      {"A*== 1", "line 1 has a token that is not base64"},
      {" 1", "line 1 has a token that is not base64"},
      {std::string(10000, 'A') + " 1", "line 1 has a token of more than 4096 bytes"},
      {small_ranks() + "YWI= 300\n", "line 258 has the token of rank 256 again"},
      {small_ranks() + "YWJj 256\n", "line 258 has rank 256, which another token has"},
  };
  for (const auto& [file, message] : cases) {
    const Status status = open(file).status();
    EXPECT_EQ(status.code(), StatusCode::kCorrupt);
    EXPECT_EQ(status.message(), "tiny.tiktoken: " + message);
  }
}

}  // namespace
}  // namespace lanner
