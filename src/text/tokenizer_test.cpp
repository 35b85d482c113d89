#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <thread>

#include "text/pre_tokenizers.h"
#include "text/test_vocabulary.h"

namespace lanner {
namespace {

using Ids = std::vector<std::int32_t>;

std::shared_ptr<const Tokenizer> make(const BpeVocabulary& vocabulary) {
  auto tokenizer = Tokenizer::from_bpe_vocabulary(vocabulary, "tiny.gguf");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

Ids encode(const Tokenizer& tokenizer, std::string_view text, const EncodeOptions& options = {}) {
  const auto ids = tokenizer.encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status().message();
  return ids.ok() ? *ids : Ids{};
}

Status load_error(const BpeVocabulary& vocabulary) {
  const auto tokenizer = Tokenizer::from_bpe_vocabulary(vocabulary, "bad.gguf");
  EXPECT_TRUE(tokenizer.ok() || tokenizer.status().message().starts_with("bad.gguf")) << tokenizer.status().message();
  return tokenizer.status();
}

TEST(Tokenizer, MergesAsTheVocabularySays) {
  const auto tokenizer = make(testing::tiny_vocabulary());
  EXPECT_EQ(encode(*tokenizer, "hello w"), (Ids{256, 257, 'o', 258}));
  EXPECT_EQ(encode(*tokenizer, ""), Ids{});
  EXPECT_EQ(encode(*tokenizer, "\xC3\xA9"), (Ids{0xC3, 0xA9}));
  EXPECT_EQ(encode(*tokenizer, std::string_view("a\0b", 3)), (Ids{'a', 0, 'b'}));
}

TEST(Tokenizer, SpecialTokensInTextAreReadOnRequest) {
  const auto tokenizer = make(testing::tiny_vocabulary());
  EXPECT_EQ(encode(*tokenizer, "a</s>"), (Ids{'a', 260}));
  EXPECT_EQ(encode(*tokenizer, "a</s>", {.parse_special = false}), (Ids{'a', '<', '/', 's', '>'}));
  // A user-defined token is no control token: it stays.
  EXPECT_EQ(encode(*tokenizer, "a<tool>", {.parse_special = false}), (Ids{'a', 261}));
}

TEST(Tokenizer, AddsBosAndEosAsAsked) {
  BpeVocabulary vocabulary = testing::tiny_vocabulary();
  vocabulary.add_bos = true;
  vocabulary.add_eos = true;
  const auto tokenizer = make(vocabulary);
  EXPECT_EQ(encode(*tokenizer, "a"), (Ids{259, 'a', 260}));
  EXPECT_EQ(encode(*tokenizer, "a", {.add_special_tokens = false}), (Ids{'a'}));
}

TEST(Tokenizer, PrefixSpaceGoesInFrontOfTheTextOnly) {
  BpeVocabulary vocabulary = testing::tiny_vocabulary();
  vocabulary.add_prefix_space = true;
  EXPECT_EQ(encode(*make(vocabulary), "w w"), (Ids{258, 258}));
  EXPECT_EQ(encode(*make(vocabulary), "a b"), (Ids{' ', 'a', ' ', 'b'}));
}

TEST(Tokenizer, FamiliesCutDigitsDifferently) {
  BpeVocabulary vocabulary = testing::tiny_vocabulary();
  vocabulary.tokens.emplace_back("123");
  vocabulary.tokens.emplace_back("12");
  vocabulary.token_types.insert(vocabulary.token_types.end(), {1, 1});
  vocabulary.merges.insert(vocabulary.merges.end(), {"1 2", "12 3"});
  EXPECT_EQ(encode(*make(vocabulary), "1234"), (Ids{262, '4'}));
  vocabulary.pre_tokenizer = "qwen2";
  EXPECT_EQ(encode(*make(vocabulary), "1234"), (Ids{'1', '2', '3', '4'}));
  vocabulary.pre_tokenizer = "llama-bpe";  // brings its BOS along
  EXPECT_EQ(encode(*make(vocabulary), "1234"), (Ids{259, 262, '4'}));
}

TEST(Tokenizer, EveryKnownPreTokenizerLoads) {
  const std::string known = find_pre_tokenizer("nonsense").status().message();
  std::size_t at = known.find("known: ") + 7;
  int count = 0;
  while (at < known.size()) {
    const std::size_t end = std::min(known.find(", ", at), known.size());
    BpeVocabulary vocabulary = testing::tiny_vocabulary();
    vocabulary.pre_tokenizer = known.substr(at, end - at);
    vocabulary.add_bos = false;
    const auto tokenizer = make(vocabulary);
    ASSERT_NE(tokenizer, nullptr) << vocabulary.pre_tokenizer;
    const std::string text = "It's 2024年, ça va?\r\n\n  x_1+=Ⅷ👍🏽 \t";
    EXPECT_EQ(*tokenizer->decode(encode(*tokenizer, text), false), text) << vocabulary.pre_tokenizer;
    at = end + 2;
    ++count;
  }
  EXPECT_GE(count, 50);
}

TEST(Tokenizer, DecodesAndSkipsSpecialTokens) {
  const auto tokenizer = make(testing::tiny_vocabulary());
  const Ids ids = {259, 256, 257, 'o', 261, 260};
  EXPECT_EQ(*tokenizer->decode(ids, false), "<s>hello<tool></s>");
  EXPECT_EQ(*tokenizer->decode(ids, true), "hello<tool>");
  EXPECT_EQ(*tokenizer->decode(Ids{0xE4, 'a'}, false),
            "\xEF\xBF\xBD"
            "a");
  EXPECT_EQ(*tokenizer->decode(Ids{'a', 5000, 'b'}, false), "ab");
  EXPECT_EQ(tokenizer->decode(Ids{-1}, false).status().code(), StatusCode::kInvalidArgument);
}

TEST(Tokenizer, TellsWhatItHolds) {
  const auto tokenizer = make(testing::tiny_vocabulary());
  EXPECT_EQ(tokenizer->vocab_size(), 262);
  EXPECT_EQ(tokenizer->token_id("</s>"), 260);
  EXPECT_EQ(tokenizer->token_id("nothing"), std::nullopt);
  EXPECT_EQ(tokenizer->token_id("\xFF"), std::nullopt);
  EXPECT_EQ(*tokenizer->piece(256), "he");
  EXPECT_EQ(tokenizer->piece(262).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(tokenizer->piece(-1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(tokenizer->is_special(259));
  EXPECT_FALSE(tokenizer->is_special(261));
  EXPECT_FALSE(tokenizer->is_special(-5));
}

TEST(Tokenizer, NamesTheByteThatIsNotUtf8) {
  const auto tokenizer = make(testing::tiny_vocabulary());
  const Status status = tokenizer->encode("ab\xFFz", {}).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("byte 2"), std::string::npos) << status.message();
}

TEST(Tokenizer, RefusesVocabulariesThatContradictThemselves) {
  const BpeVocabulary good = testing::tiny_vocabulary();
  EXPECT_EQ(load_error(BpeVocabulary{}).code(), StatusCode::kCorrupt);
  BpeVocabulary bad = good;
  bad.token_types.pop_back();
  EXPECT_EQ(load_error(bad).code(), StatusCode::kCorrupt);
  bad = good;
  bad.tokens[5] = bad.tokens[6];
  EXPECT_NE(load_error(bad).message().find("5 and 6"), std::string::npos);
  for (const char* merge : {"", " ", "a", "ab", " a", "a ", "he nonsense"}) {
    bad = good;
    bad.merges.emplace_back(merge);
    EXPECT_EQ(load_error(bad).code(), StatusCode::kCorrupt) << merge;
  }
  bad = good;
  bad.bos_id = 262;
  EXPECT_EQ(load_error(bad).code(), StatusCode::kCorrupt);
  bad = good;
  bad.bos_id.reset();
  bad.add_bos = true;
  EXPECT_EQ(load_error(bad).code(), StatusCode::kCorrupt);
  bad = good;
  bad.tokens[200] = "\xC3";
  EXPECT_EQ(load_error(bad).code(), StatusCode::kCorrupt);
}

TEST(Tokenizer, UnknownPreTokenizerListsTheKnownOnes) {
  BpeVocabulary vocabulary = testing::tiny_vocabulary();
  vocabulary.pre_tokenizer = "tomorrow";
  const Status status = load_error(vocabulary);
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_NE(status.message().find("smollm"), std::string::npos);
}

TEST(Tokenizer, RefusesBadJson) {
  for (const std::string& json : {std::string(), std::string("{}"), std::string("\xFF"), std::string("[1,2"),
                                  std::string(100000, '['), std::string("{\"model\":{\"type\":\"BPE\"}}")}) {
    const auto tokenizer = Tokenizer::from_json(json, "bad.json");
    ASSERT_FALSE(tokenizer.ok());
    EXPECT_EQ(tokenizer.status().code(), StatusCode::kCorrupt);
    EXPECT_TRUE(tokenizer.status().message().starts_with("bad.json: ")) << tokenizer.status().message();
  }
}

TEST(Tokenizer, ServesManyThreadsAtOnce) {
  const auto tokenizer = make(testing::tiny_vocabulary());
  std::vector<std::thread> threads;
  std::vector<int> wrong(8, 0);
  for (std::size_t which = 0; which < wrong.size(); ++which) {
    threads.emplace_back([&, which] {
      for (int round = 0; round < 200; ++round) {
        const std::string text = "hello w" + std::to_string(round) + "</s>";
        const auto ids = tokenizer->encode(text, {.parse_special = which % 2 == 0});
        wrong[which] += ids.ok() && *tokenizer->decode(*ids, false) == text ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(8, 0));
}

}  // namespace
}  // namespace lanner
