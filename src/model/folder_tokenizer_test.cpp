#include "model/folder_tokenizer.h"

#include <gtest/gtest.h>

#include "model/file_builders.h"
#include "text/test_vocabulary.h"

namespace lanner::model {
namespace {

using Ids = std::vector<std::int32_t>;

using testing::small_ranks;
using testing::small_sentencepiece_model;
using namespace testing::piece;

class FolderTokenizer : public ::testing::Test {
 protected:
  void write_model() { folder_.write("tokenizer.model", serialize_sentencepiece_model(small_sentencepiece_model())); }
  void write_config(std::string_view text) { folder_.write("tokenizer_config.json", text); }

  Result<std::shared_ptr<const Tokenizer>> open(std::string_view config = "{}") {
    return open_folder_tokenizer(folder_.path(), Json::parse(config));
  }
  Ids encode(std::string_view text, const EncodeOptions& options = {}) {
    const auto tokenizer = open();
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    if (!tokenizer.ok()) return {};
    const auto ids = (*tokenizer)->encode(text, options);
    EXPECT_TRUE(ids.ok()) << ids.status().message();
    return ids.ok() ? *ids : Ids{};
  }

  TemporaryFolder folder_;
};

TEST_F(FolderTokenizer, AModelAloneGetsItsBos) {
  write_model();
  EXPECT_EQ(encode("ab c"), (Ids{1, kBlankAb, kBlank, kC}));
  EXPECT_EQ(encode("ab</s>"), (Ids{1, kBlankAb, 2}));
  EXPECT_EQ(encode("</s>", {.parse_special = false}).size(), 6U);  // BOS, the blank and four bytes
}

TEST_F(FolderTokenizer, TokenizerJsonWins) {
  write_model();
  folder_.write("tokenizer.json", R"({"model": {"type": "WordLevel", "vocab": {"ab": 0, "x": 1}, "unk_token": "x"}})");
  EXPECT_EQ(encode("ab"), Ids{0});
}

TEST_F(FolderTokenizer, AddsBosAndEosAsTheFilesSay) {
  write_model();
  write_config(R"({"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": {"content": "</s>"},
                   "add_bos_token": false, "add_eos_token": true})");
  EXPECT_EQ(encode("a"), (Ids{kBlankA, 2}));
  write_config(R"({"bos_token": null})");
  EXPECT_EQ(encode("a"), Ids{kBlankA});
  write_config(R"({"bos_token": null, "add_bos_token": true})");
  EXPECT_EQ(open().status().code(), StatusCode::kCorrupt);
}

TEST_F(FolderTokenizer, TheDummyPrefixFollowsLegacy) {
  write_model();
  const std::string text = "a</s>a</s> a";
  write_config(R"({"add_bos_token": false})");
  EXPECT_EQ(encode(text), (Ids{kBlankA, 2, kBlankA, 2, kBlank, kBlankA}));
  EXPECT_EQ(encode(" a"), (Ids{kBlank, kBlankA}));
  write_config(R"({"add_bos_token": false, "legacy": false})");
  EXPECT_EQ(encode(text), (Ids{kBlankA, 2, kA, 2, kBlankA}));
  EXPECT_EQ(encode(" a"), Ids{kBlankA});
  EXPECT_EQ(encode("</s>a"), (Ids{2, kA}));
  write_config(R"({"add_bos_token": false, "add_prefix_space": false})");
  EXPECT_EQ(encode(text), (Ids{kA, 2, kA, 2, kBlankA}));
}

TEST_F(FolderTokenizer, AddedTokensTakeThePlaceOfPieces) {
  write_model();
  write_config(R"({"add_bos_token": false, "tokenizer_class": "InternLM2Tokenizer", "added_tokens_decoder": {
      "1": {"content": "<s>", "special": true}, "266": {"content": "<|im_start|>", "special": true},
      "268": {"content": "<tool>", "special": false, "rstrip": true, "lstrip": true}}})");
  EXPECT_EQ(encode("<|im_start|>a"), (Ids{kUnused1, kBlankA}));
  EXPECT_EQ(encode("a  <tool> \n b"), (Ids{kBlankA, 268, kBlank, kB}));
  EXPECT_EQ(encode("a<tool>", {.parse_special = false}), (Ids{kBlankA, 268}));
  const auto tokenizer = open();
  EXPECT_EQ((*tokenizer)->vocab_size(), 269);
  EXPECT_EQ(*(*tokenizer)->piece(kUnused1), "<|im_start|>");
  EXPECT_EQ(*(*tokenizer)->decode(Ids{1, kUnused1, kBlankA, 268}, false), "<s><|im_start|> a<tool>");
  EXPECT_EQ(*(*tokenizer)->decode(Ids{1, kUnused1, kBlankA, 268}, true), "a<tool>");
}

TEST_F(FolderTokenizer, NewTokensGetTheNextIds) {
  write_model();
  write_config(
      R"({"add_bos_token": false, "pad_token": "<pad>", "additional_special_tokens": ["<x>", "<pad>", "</s>"]})");
  folder_.write("added_tokens.json", R"({"<|user|>": 300})");
  folder_.write("special_tokens_map.json", R"({"additional_special_tokens": ["<y>"], "eos_token": "<|user|>"})");
  EXPECT_EQ(encode("<pad><x><y></s><|user|>"), (Ids{301, 302, 303, 2, 300}));
  EXPECT_TRUE((*open())->is_special(300));
}

TEST_F(FolderTokenizer, ChatGlmAddsItsOwnTokens) {
  write_model();
  write_config(R"({"tokenizer_class": "ChatGLMTokenizer"})");
  // [MASK] 268, [gMASK] 269, [sMASK] 270, sop 271, eop 272, <|system|> 273, <|user|> 274
  EXPECT_EQ(encode("<|user|>a"), (Ids{269, 271, 274, kBlankA}));
  const Ids word = encode("sop", {.add_special_tokens = false});
  EXPECT_EQ(std::ranges::count(word, 271), 0);
  EXPECT_EQ((*open())->token_id("sop"), 271);
  // A template that writes what goes in front of a text gets it once.
  EXPECT_EQ(encode("[gMASK]sop<|user|>a"), (Ids{269, 271, 274, kBlankA}));
}

TEST_F(FolderTokenizer, ReadsRanksOfQwenAndGlm4) {
  const std::string ranks = small_ranks();
  folder_.write("qwen.tiktoken", ranks);
  EXPECT_EQ(encode("ab<|im_end|>b"), (Ids{256, 259, 'b'}));
  EXPECT_EQ((*open())->vocab_size(), 257 + 208);
  EXPECT_EQ(encode("e\xCC\x81"), (Ids{0xC3, 0xA9}));  // composed first
  folder_.write("tokenizer.model", ranks);
  EXPECT_EQ(open().status().code(), StatusCode::kUnsupported);
  write_config(R"({"tokenizer_class": "ChatGLM4Tokenizer", "added_tokens_decoder": {
      "257": {"content": "<|endoftext|>"}, "258": {"content": "[gMASK]"}, "259": {"content": "<sop>"}}})");
  EXPECT_EQ(encode("ab<|endoftext|>"), (Ids{258, 259, 256, 257}));
  EXPECT_EQ(encode("[gMASK]<sop>ab"), (Ids{258, 259, 256}));
  EXPECT_EQ(encode("e\xCC\x81", {.add_special_tokens = false}), (Ids{'e', 0xCC, 0x81}));
}

TEST_F(FolderTokenizer, RefusesTokensPastTheEmbedding) {
  write_model();
  EXPECT_TRUE(open(R"({"vocab_size": 268})").ok());
  EXPECT_TRUE(open(R"({"vocab_size": 300, "text_config": {"vocab_size": 268}})").ok());
  for (const char* config : {R"({"vocab_size": 267})", R"({"vocab_size": 300, "llm_config": {"vocab_size": 267}})"}) {
    const Status status = open(config).status();
    EXPECT_EQ(status.code(), StatusCode::kCorrupt);
    EXPECT_EQ(status.message(), folder_.path() +
                                    ": the tokenizer's token 267 ('[UNUSED_2]') is past the 267 rows of "
                                    "the model's embedding (config.json: vocab_size)");
  }
}

TEST_F(FolderTokenizer, RefusesFilesThatContradictThemselves) {
  write_model();
  for (const char* config :
       {R"({"added_tokens_decoder": []})", R"({"added_tokens_decoder": {"x": "a"}})",
        R"({"added_tokens_decoder": {"-1": "a"}})", R"({"added_tokens_decoder": {"99999999": "a"}})",
        R"({"added_tokens_decoder": {"300": 7}})", R"({"added_tokens_decoder": {"300": {"content": ""}}})",
        R"({"added_tokens_decoder": {"300": {"content": "a"}, "301": {"content": "a"}}})",
        R"({"added_tokens_decoder": {"300": {"content": "a", "lstrip": 1}}})", R"({"bos_token": 1})",
        R"({"additional_special_tokens": 1})", R"({"add_bos_token": 1})", R"({"legacy": "no"})",
        R"({"tokenizer_class": 1})"}) {
    write_config(config);
    const Status status = open().status();
    EXPECT_EQ(status.code(), StatusCode::kCorrupt) << config;
    EXPECT_EQ(status.message().find(folder_.path()), 0U) << status.message();
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }
  write_config("{}");
  for (const char* added : {R"({"a\nb": -1})", R"({"a\nb": 16777216})", R"({"a\nb": "1"})", R"({"a\nb": null})"}) {
    folder_.write("added_tokens.json", added);
    EXPECT_EQ(open().status().message(), folder_.path() + "/added_tokens.json: a?b: is no id from 0 to 16777215");
  }
}

}  // namespace
}  // namespace lanner::model
