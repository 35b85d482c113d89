#include "text/sentencepiece_tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "text/detokenizer.h"
#include "text/stop_strings.h"
#include "text/test_vocabulary.h"

namespace lanner {
namespace {

using Ids = std::vector<std::int32_t>;
using Strings = std::vector<std::string>;
using testing::small_sentencepiece_model;
using namespace testing::piece;

constexpr std::int32_t byte_id(int byte) { return kBytes + byte; }

std::shared_ptr<const Tokenizer> make(SentencePieceModel model, SentencePieceRules rules = {}) {
  auto tokenizer = Tokenizer::from_sentencepiece(std::move(model), std::move(rules), "tiny.model");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

std::shared_ptr<const Tokenizer> make() { return make(small_sentencepiece_model()); }

Strings steps(const std::shared_ptr<const Tokenizer>& tokenizer, const Ids& ids, bool skip = true) {
  IncrementalDetokenizer detokenizer(tokenizer, skip);
  Strings out;
  for (const std::int32_t id : ids) out.push_back(*detokenizer.push(id));
  out.push_back(detokenizer.finish());
  return out;
}

std::string joined(const Strings& parts) {
  std::string text;
  for (const std::string& part : parts) text += part;
  return text;
}

TEST(SentencePieceTokenizer, EncodesAndDecodes) {
  const auto tokenizer = make();
  EXPECT_EQ(*tokenizer->encode("ab ab", {}), (Ids{kBlankAb, kBlankAb}));
  EXPECT_EQ(*tokenizer->encode("", {}), Ids{});
  EXPECT_EQ(*tokenizer->encode("é", {}), (Ids{kBlank, byte_id(0xC3), byte_id(0xA9)}));
  EXPECT_EQ(*tokenizer->decode(Ids{kBlankAb, kBlankAb}, true), "ab ab");
  EXPECT_EQ(*tokenizer->decode(Ids{1, kBlankAb, 2}, true), "ab");
  EXPECT_EQ(*tokenizer->decode(Ids{1, kBlankAb, 2}, false), "<s> ab</s>");
  EXPECT_EQ(*tokenizer->decode(Ids{kBlank, kBlank, kA, 9999}, true), " a");
  EXPECT_EQ(tokenizer->decode(Ids{-1}, true).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(tokenizer->encode("a\xFF", {}).status().message(), "the text is not UTF-8 at byte 1");
}

TEST(SentencePieceTokenizer, TellsWhatItHolds) {
  const auto tokenizer =
      make(small_sentencepiece_model(), {.added_tokens = {{.id = 300, .content = "<tool>", .special = false}}});
  EXPECT_EQ(tokenizer->vocab_size(), 301);
  EXPECT_EQ(tokenizer->token_id("▁ab"), kBlankAb);
  EXPECT_EQ(tokenizer->token_id("<tool>"), 300);
  EXPECT_EQ(tokenizer->token_id("<0x41>"), byte_id(0x41));
  EXPECT_EQ(tokenizer->token_id("nothing"), std::nullopt);
  EXPECT_EQ(*tokenizer->piece(kBlankAb), "▁ab");
  EXPECT_EQ(tokenizer->piece(299).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(tokenizer->is_special(0));
  EXPECT_TRUE(tokenizer->is_special(1));
  EXPECT_FALSE(tokenizer->is_special(300));
  EXPECT_FALSE(tokenizer->is_special(-7));
}

TEST(SentencePieceTokenizer, RefusesIdsThatAreNoTokens) {
  for (const std::int32_t id : {-1, 268}) {
    const auto made =
        Tokenizer::from_sentencepiece(small_sentencepiece_model(), {.ends = {.prefix_ids = {id}}}, "bad.model");
    EXPECT_EQ(made.status().code(), StatusCode::kCorrupt);
    EXPECT_TRUE(made.status().message().starts_with("bad.model: "));
  }
}

// The library does not spell the character NUL as the piece that some models have for it.
TEST(SentencePieceTokenizer, NulIsAByte) {
  SentencePieceModel model = small_sentencepiece_model();
  model.pieces.push_back({std::string(1, '\0'), 0, PieceType::kNormal});
  const auto tokenizer = make(model);
  EXPECT_EQ(*tokenizer->encode(std::string_view("a\0", 2), {}), (Ids{kBlankA, byte_id(0)}));
  EXPECT_EQ(*tokenizer->decode(Ids{kBlankA, 268}, true), std::string("a\0", 2));
}

TEST(SentencePieceTokenizer, StreamsWithoutTheFirstBlank) {
  EXPECT_EQ(steps(make(), {1, kBlankAb, kBlankA, kBlank, kBlankA, kB}), (Strings{"", "ab", " a", " ", " a", "b", ""}));
  EXPECT_EQ(steps(make(), {kBlank, kBlankA}), (Strings{"", " a", ""}));
}

TEST(SentencePieceTokenizer, StreamsCharactersOfBytesAsSoonAsTheyAreWhole) {
  const Ids smile = {kBlankA, byte_id(0xF0), byte_id(0x9F), byte_id(0x98), byte_id(0x80), byte_id(0x21), kB};
  EXPECT_EQ(steps(make(), smile), (Strings{"a", "", "", "", "😀", "!", "b", ""}));
  const std::string fffd = "\xEF\xBF\xBD";
  EXPECT_EQ(steps(make(), {byte_id(0xE4), byte_id(0xBD), kB}), (Strings{"", "", fffd + fffd + "b", ""}));
  EXPECT_EQ(steps(make(), {byte_id(0xE4), byte_id(0xBD)}), (Strings{"", "", fffd + fffd}));
}

TEST(SentencePieceTokenizer, StreamsWhatDecodingAllAtOnceGives) {
  SentencePieceModel strict = small_sentencepiece_model();
  strict.remove_extra_blanks = true;
  SentencePieceModel bare = small_sentencepiece_model();
  bare.add_dummy_prefix = false;
  std::mt19937 random(3);
  for (const auto& tokenizer : {make(), make(strict), make(bare)}) {
    for (int round = 0; round < 2000; ++round) {
      Ids ids(random() % 60);
      // Bytes that begin and continue characters, blanks, and a few of everything.
      for (std::int32_t& id : ids) {
        const auto kind = random() % 4;
        id = static_cast<std::int32_t>(kind == 0   ? random() % 270
                                       : kind == 1 ? kBytes + 0x80 + random() % 0x80
                                       : kind == 2 ? kBytes + 0xE0 + random() % 0x18
                                                   : kBlankA + random() % 7);
      }
      for (const bool skip : {false, true}) {
        ASSERT_EQ(joined(steps(tokenizer, ids, skip)), *tokenizer->decode(ids, skip)) << "round " << round;
      }
    }
  }
}

TEST(SentencePieceTokenizer, LongRunsOfBrokenBytesStream) {
  const Ids ids(20000, byte_id(0xE4));
  const Strings parts = steps(make(), ids);
  EXPECT_EQ(joined(parts), *make()->decode(ids, true));
  for (const std::string& part : parts) EXPECT_LT(part.size(), 100U);
}

TEST(SentencePieceTokenizer, StopStringsMatchAcrossPieces) {
  const auto tokenizer = make();
  IncrementalDetokenizer detokenizer(tokenizer, true);
  StopMatcher matcher({"b 你"});
  std::string shown;
  bool stopped = false;
  for (const std::int32_t id : {kBlankA, kB, kBlank, byte_id(0xE4), byte_id(0xBD), byte_id(0xA0), kC}) {
    const StopMatcher::Step step = matcher.push(*detokenizer.push(id));
    shown += step.text;
    stopped = step.stop.has_value();
    if (stopped) break;
  }
  EXPECT_TRUE(stopped);
  EXPECT_EQ(shown, "a");
}

TEST(SentencePieceTokenizer, ServesManyThreadsAtOnce) {
  const auto tokenizer = make();
  std::vector<std::thread> threads;
  std::vector<int> wrong(8, 0);
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        const std::string text = "ab" + std::string(static_cast<std::size_t>(round), 'c') + " é";
        const auto ids = tokenizer->encode(text, {});
        count += ids.ok() && *tokenizer->decode(*ids, true) == text ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(8, 0));
}

}  // namespace
}  // namespace lanner
