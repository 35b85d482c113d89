#include "model/gguf_vocabulary.h"

#include <gtest/gtest.h>

#include <functional>

#include "model/file_builders.h"
#include "text/test_vocabulary.h"

namespace lanner::model {
namespace {

using Ids = std::vector<std::int32_t>;
using testing::small_sentencepiece_model;
using namespace testing::piece;

constexpr std::uint32_t kBool = 7;

void add_bool(GgufBuilder& builder, std::string_view key, bool value) {
  builder.add_key(key, kBool);
  builder.add_raw(std::string(1, value ? '\1' : '\0'));
}

void add_floats(GgufBuilder& builder, std::string_view key, const std::vector<float>& values) {
  builder.add_key(key, GgufBuilder::kArray);
  std::string raw;
  append(raw, GgufBuilder::kF32);
  append(raw, static_cast<std::uint64_t>(values.size()));
  for (const float value : values) append(raw, value);
  builder.add_raw(raw);
}

/// The parts of a vocabulary of the kind "llama", which a test spoils before they become a file.
struct Parts {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  std::vector<float> scores;
  std::function<void(GgufBuilder&)> more = [](GgufBuilder&) {};

  Parts() {
    for (const SentencePiece& piece : small_sentencepiece_model().pieces) {
      tokens.push_back(piece.text);
      types.push_back(static_cast<std::int32_t>(piece.type));
      scores.push_back(piece.score);
    }
  }

  std::string file() const {
    GgufBuilder builder;
    builder.add_string("tokenizer.ggml.model", "llama");
    builder.add_strings("tokenizer.ggml.tokens", tokens);
    builder.add_integers("tokenizer.ggml.token_type", types);
    add_floats(builder, "tokenizer.ggml.scores", scores);
    more(builder);
    return builder.file();
  }

  Result<std::shared_ptr<const Tokenizer>> open() const {
    const std::string bytes = file();
    LANNER_ASSIGN_OR_RETURN(const Gguf gguf, parse_gguf(as_bytes(bytes), "x.gguf"));
    return gguf_tokenizer(gguf);
  }

  Ids encode(std::string_view text, const EncodeOptions& options = {}) const {
    const auto tokenizer = open();
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    return tokenizer.ok() ? *(*tokenizer)->encode(text, options) : Ids{};
  }
};

TEST(GgufVocabulary, ReadsTheKindLlama) {
  EXPECT_EQ(Parts().encode("ab c"), (Ids{1, kBlankAb, kBlank, kC}));
  EXPECT_EQ(Parts().encode("a</s>a"), (Ids{1, kBlankA, 2, kBlankA}));
  EXPECT_EQ(Parts().encode("a</s>", {.add_special_tokens = false, .parse_special = false}).size(), 5U);
}

TEST(GgufVocabulary, FollowsTheFlags) {
  Parts parts;
  parts.more = [](GgufBuilder& builder) {
    add_bool(builder, "tokenizer.ggml.add_space_prefix", false);
    add_bool(builder, "tokenizer.ggml.add_bos_token", false);
    add_bool(builder, "tokenizer.ggml.add_eos_token", true);
    builder.add_u32("tokenizer.ggml.eos_token_id", 1);
  };
  EXPECT_EQ(parts.encode("ab"), (Ids{kAb, 1}));
}

TEST(GgufVocabulary, UserDefinedPiecesStandAndMarkersMayTakeBlanks) {
  Parts parts;
  parts.tokens[kUnused1] = "<|end|>";
  parts.types[kUnused1] = 3;
  parts.tokens[kUnused2] = "<tool>";
  parts.types[kUnused2] = 4;
  EXPECT_EQ(parts.encode("<tool> a", {.parse_special = false}), (Ids{1, kUnused2, kBlank, kBlankA}));
  EXPECT_EQ(parts.encode("<|end|>\n a"), (Ids{1, kUnused1, kBlank, kBytes + '\n', kBlankA}));
  parts.more = [](GgufBuilder& builder) { builder.add_string("general.name", "Phi-3 mini"); };
  EXPECT_EQ(parts.encode("<|end|>\n a"), (Ids{1, kUnused1, kBlankA}));
}

TEST(GgufVocabulary, PaddingAndMissingUnknownPiecesAreTaken) {
  Parts parts;
  parts.tokens[kUnused1] = "";
  parts.tokens[kUnused2] = "";
  parts.types[0] = 1;
  EXPECT_EQ(parts.encode("ab"), (Ids{1, kBlankAb}));
  parts.types[0] = parts.types[1] = 2;  // both unknown
  EXPECT_EQ(parts.encode("ab"), (Ids{1, kBlankAb}));
}

TEST(GgufVocabulary, RefusesContradictions) {
  const auto error = [](const std::function<void(Parts&)>& spoil) {
    Parts parts;
    spoil(parts);
    const Status status = parts.open().status();
    EXPECT_EQ(status.code(), StatusCode::kCorrupt);
    return status.message();
  };
  EXPECT_EQ(error([](Parts& parts) { parts.scores.pop_back(); }),
            "x.gguf: tokenizer.ggml.scores: 267 scores for 268 tokens");
  EXPECT_EQ(error([](Parts& parts) { parts.types.push_back(1); }),
            "x.gguf: tokenizer.ggml.token_type: 269 types for 268 tokens");
  EXPECT_EQ(error([](Parts& parts) { parts.tokens[kB] = parts.tokens[kA]; }),
            "x.gguf: pieces 263 and 264 are the same");
  EXPECT_EQ(error([](Parts& parts) { parts.types[kBytes] = 3; }),
            "x.gguf: byte_fallback is on with 255 of 256 byte pieces");
  EXPECT_EQ(error([](Parts& parts) { parts.scores[kA] = -1e38F; }).find("x.gguf: piece 263 has the score"), 0U);
  EXPECT_EQ(error([](Parts& parts) {
              parts.more = [](GgufBuilder& builder) { builder.add_u32("tokenizer.ggml.bos_token_id", 268); };
            }),
            "x.gguf: tokenizer.ggml.add_bos_token: asks for a token that is not there");
  EXPECT_EQ(error([](Parts& parts) {
              parts.tokens.clear();
              parts.types.clear();
              parts.scores.clear();
            }),
            "x.gguf: tokenizer.ggml.tokens: is empty");
  EXPECT_EQ(error([](Parts& parts) { parts.types.resize((1U << 21U) + 1U, 1); }),
            "x.gguf: tokenizer.ggml.token_type: 2097153 elements, allowed are 2097152");
  EXPECT_EQ(error([](Parts& parts) { parts.tokens.resize((1U << 21U) + 1U); }),
            "x.gguf: tokenizer.ggml.tokens: 2097153 elements, allowed are 2097152");
  GgufBuilder no_scores;
  no_scores.add_string("tokenizer.ggml.model", "llama");
  no_scores.add_strings("tokenizer.ggml.tokens", {"a"});
  no_scores.add_integers("tokenizer.ggml.token_type", {2});
  const std::string file = no_scores.file();
  EXPECT_EQ(gguf_tokenizer(*parse_gguf(as_bytes(file), "x.gguf")).status().message(),
            "x.gguf: tokenizer.ggml.scores: is missing");
}

}  // namespace
}  // namespace lanner::model
