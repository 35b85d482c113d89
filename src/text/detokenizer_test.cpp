#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "text/test_vocabulary.h"

namespace lanner {
namespace {

using Ids = std::vector<std::int32_t>;
constexpr const char* kReplacement = "\xEF\xBF\xBD";

std::shared_ptr<const Tokenizer> byte_level() {
  return *Tokenizer::from_bpe_vocabulary(testing::tiny_vocabulary(), "tiny");
}

std::shared_ptr<const Tokenizer> sentencepiece_like() {
  auto tokenizer = Tokenizer::from_json(testing::sentencepiece_like_json(), "tiny");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return *tokenizer;
}

std::vector<std::string> steps(const std::shared_ptr<const Tokenizer>& tokenizer, const Ids& ids, bool skip = false) {
  IncrementalDetokenizer detokenizer(tokenizer, skip);
  std::vector<std::string> out;
  for (const std::int32_t id : ids) out.push_back(*detokenizer.push(id));
  out.push_back(detokenizer.finish());
  return out;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += part;
  return text;
}

using Strings = std::vector<std::string>;

TEST(Detokenizer, HoldsHalfCharactersBack) {
  EXPECT_EQ(steps(byte_level(), {'a', 0xF0, 0x9F, 0x98, 0x80, 'b'}), (Strings{"a", "", "", "", "😀", "b", ""}));
}

TEST(Detokenizer, HalfACharacterAtTheEndComesOutWithFinish) {
  EXPECT_EQ(steps(byte_level(), {'a', 0xF0, 0x9F}), (Strings{"a", "", "", kReplacement}));
  EXPECT_EQ(steps(byte_level(), {0xF0, 'b'}), (Strings{"", std::string(kReplacement) + "b", ""}));
}

TEST(Detokenizer, SkipsSpecialTokensAndUnknownIds) {
  EXPECT_EQ(steps(byte_level(), {259, 'a', 5000, 260}, true), (Strings{"", "a", "", "", ""}));
  EXPECT_EQ(steps(byte_level(), {259, 'a', 260}, false), (Strings{"<s>", "a", "</s>", ""}));
}

TEST(Detokenizer, RefusesNegativeIdsAndGoesOn) {
  IncrementalDetokenizer detokenizer(byte_level(), false);
  EXPECT_EQ(*detokenizer.push(0xC3), "");
  EXPECT_EQ(detokenizer.push(-1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(*detokenizer.push(0xA9), "é");
}

TEST(Detokenizer, KeepsBlanksBetweenWordsOfSentencePiece) {
  EXPECT_EQ(steps(sentencepiece_like(), {258, 258, 257, 258, 259}), (Strings{"Hi", " Hi", " ", " Hi", "Hi", ""}));
}

TEST(Detokenizer, ByteRunsComeOutWhole) {
  // E4 BD A0 is one character; the run ends with the next ordinary token.
  EXPECT_EQ(steps(sentencepiece_like(), {258, 0xE5, 0xBE, 0xA1, 260}), (Strings{"Hi", "", "", "", "你你", ""}));
  // A run that is not UTF-8 becomes one U+FFFD a byte, also where its beginning would have been a character.
  const Ids broken = {258, 0xE5, 0xBE, 0xA1, 0x100, 260};
  EXPECT_EQ(joined(steps(sentencepiece_like(), broken)), *sentencepiece_like()->decode(broken, false));
}

TEST(Detokenizer, EqualsDecodingAllAtOnce) {
  std::mt19937 random(7);
  for (const auto& tokenizer : {byte_level(), sentencepiece_like()}) {
    for (int round = 0; round < 2000; ++round) {
      Ids ids(random() % 40);
      // Mostly bytes that continue or begin characters, so that broken ones and long runs occur.
      for (std::int32_t& id : ids) {
        id = static_cast<std::int32_t>(random() % 3 == 0 ? random() % 262 : 0x80 + random() % 0x80);
      }
      for (const bool skip : {false, true}) {
        ASSERT_EQ(joined(steps(tokenizer, ids, skip)), *tokenizer->decode(ids, skip)) << "round " << round;
      }
    }
  }
}

TEST(Detokenizer, EveryPartIsUtf8) {
  std::mt19937 random(11);
  const auto tokenizer = byte_level();
  IncrementalDetokenizer detokenizer(tokenizer, false);
  for (int round = 0; round < 5000; ++round) {
    const std::string part = *detokenizer.push(static_cast<std::int32_t>(random() % 256));
    // encode() refuses what is not UTF-8.
    ASSERT_TRUE(tokenizer->encode(part, {}).ok());
  }
}

// The cost of a token must not grow with what came before, not even for bytes that never form a character.
TEST(Detokenizer, LongTextsCostTheSamePerToken) {
  const auto tokenizer = byte_level();
  for (const std::int32_t id : {0x80, 0xF0, static_cast<int>('a')}) {
    const auto started = std::chrono::steady_clock::now();
    const Ids ids(20000, id);
    EXPECT_EQ(joined(steps(tokenizer, ids)), *tokenizer->decode(ids, false));
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
    EXPECT_LT(seconds.count(), 20.0);  // quadratic cost takes minutes
  }
}

}  // namespace
}  // namespace lanner
