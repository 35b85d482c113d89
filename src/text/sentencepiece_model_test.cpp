#include "text/sentencepiece_model.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "text/test_vocabulary.h"

namespace lanner {
namespace {

using testing::small_sentencepiece_model;

std::string error_of(const SentencePieceModel& model) {
  const Status status = check_sentencepiece_model(model);
  EXPECT_EQ(status.code(), StatusCode::kCorrupt);
  EXPECT_EQ(status.message().find('\n'), std::string::npos);
  return status.message();
}

/// One more piece behind the others.
std::string error_with(const SentencePiece& piece) {
  SentencePieceModel model = small_sentencepiece_model();
  model.pieces.push_back(piece);
  return error_of(model);
}

TEST(SentencePieceModel, ComesBackFromItsFile) {
  SentencePieceModel model = small_sentencepiece_model();
  model.add_dummy_prefix = false;
  model.blank_as_suffix = true;
  const auto read = parse_sentencepiece_model(serialize_sentencepiece_model(model));
  ASSERT_TRUE(read.ok()) << read.status().message();
  ASSERT_EQ(read->pieces.size(), model.pieces.size());
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    EXPECT_EQ(read->pieces[id].text, model.pieces[id].text);
    EXPECT_EQ(read->pieces[id].score, model.pieces[id].score);
    EXPECT_EQ(read->pieces[id].type, model.pieces[id].type);
  }
  EXPECT_EQ(read->algorithm, model.algorithm);
  EXPECT_TRUE(read->byte_fallback);
  EXPECT_FALSE(read->add_dummy_prefix);
  EXPECT_FALSE(read->remove_extra_blanks);
  EXPECT_TRUE(read->blank_as_suffix);
  EXPECT_TRUE(read->escape_blanks);
}

TEST(SentencePieceModel, EveryCutFileIsRefusedOrWhole) {
  const std::string file = serialize_sentencepiece_model(small_sentencepiece_model());
  for (std::size_t size = 0; size < file.size(); ++size) {
    const auto read = parse_sentencepiece_model(std::string_view(file).substr(0, size));
    // Without its last message the model still has all pieces, but not byte_fallback or the normalizer.
    if (read.ok()) {
      EXPECT_EQ(read->pieces.size(), small_sentencepiece_model().pieces.size());
    }
  }
  for (const char* other : {"", "\x0A", "\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", "\x0B\x0C", "GGUF", "{}"}) {
    EXPECT_EQ(parse_sentencepiece_model(other).status().code(), StatusCode::kCorrupt) << other;
  }
}

TEST(SentencePieceModel, RefusesBadPieces) {
  EXPECT_EQ(error_of({}), "has no pieces");
  SentencePieceModel large;
  large.pieces.resize(kMaxSentencePieces + 1);
  EXPECT_EQ(error_of(large), "has more than 4194304 pieces");
  EXPECT_EQ(error_with({"", 0, PieceType::kNormal}), "piece 268 is empty");
  EXPECT_EQ(error_with({"ab", 0, PieceType::kNormal}), "pieces 260 and 268 are the same");
  EXPECT_EQ(error_with({"<s>", 0, PieceType::kControl}), "pieces 1 and 268 are the same");
  EXPECT_EQ(error_with({"\xC3", 0, PieceType::kNormal}), "piece 268 is not UTF-8");
  EXPECT_EQ(error_with({std::string(5000, 'x'), 0, PieceType::kNormal}), "piece 268 has 5000 bytes, allowed are 4096");
  EXPECT_EQ(error_with({std::string("\0x", 2), 0, PieceType::kUserDefined}), "piece 268 holds a NUL");
  EXPECT_EQ(error_with({"<0xgg>", 0, PieceType::kByte}), "piece 268 is a byte, but not spelled as one");
  EXPECT_EQ(error_with({"<unk2>", 0, PieceType::kUnknown}), "has 2 unknown pieces instead of one");
  for (const float score : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), -1e30F}) {
    EXPECT_NE(error_with({"x", score, PieceType::kNormal}).find("piece 268 has the score"), std::string::npos);
  }
}

TEST(SentencePieceModel, RefusesHalfASetOfBytes) {
  SentencePieceModel model = small_sentencepiece_model();
  model.byte_fallback = false;
  EXPECT_EQ(error_of(model), "has byte pieces, but byte_fallback is off");
  model = small_sentencepiece_model();
  model.pieces[10].type = PieceType::kControl;
  EXPECT_EQ(error_of(model), "byte_fallback is on with 255 of 256 byte pieces");
}

TEST(SentencePieceModel, RefusesMoreNestedSymbolsThanTheLibraryLooksUp) {
  SentencePieceModel model = small_sentencepiece_model();
  std::string symbol;
  for (int depth = 0; depth < 64; ++depth) model.pieces.push_back({symbol += "x", 0, PieceType::kUserDefined});
  EXPECT_TRUE(check_sentencepiece_model(model).ok());
  model.pieces.push_back({symbol + "x", 0, PieceType::kUserDefined});
  EXPECT_EQ(error_of(model), "more than 64 user-defined pieces begin one with the other");
}

void append_u32(std::string& out, std::uint32_t value) { out.append(reinterpret_cast<const char*>(&value), 4); }

/// A map of characters whose double array has these units, 256 at a time.
std::string character_map(const std::vector<std::uint32_t>& units, std::string_view replacements) {
  std::string map;
  append_u32(map, static_cast<std::uint32_t>(units.size() * 4));
  for (const std::uint32_t unit : units) append_u32(map, unit);
  return map.append(replacements);
}

TEST(SentencePieceModel, RefusesCharacterMapsThatLeadAstray) {
  const std::string_view text("b\0", 2);
  std::vector<std::uint32_t> sound(512, 0xFFFFFF00U | 1);  // no label matches its place
  sound[0] = 256U << 10;                                   // the root's children lie at 256 + label
  sound[256 + 'a'] = 'a' | 0x100U | (('a' + 1U) << 10);    // "a" is a rule; its value lies at (256 + 'a') ^ ('a' + 1)
  const std::size_t value = (256U + 'a') ^ ('a' + 1U);
  sound[value] = 0x80000000U;
  SentencePieceModel model = small_sentencepiece_model();
  model.character_map = character_map(sound, text);
  EXPECT_TRUE(check_sentencepiece_model(model).ok()) << check_sentencepiece_model(model).message();

  const auto refused = [&](std::size_t at, std::uint32_t unit, std::string_view replacements) {
    std::vector<std::uint32_t> units = sound;
    units[at] = unit;
    model.character_map = character_map(units, replacements);
    EXPECT_EQ(error_of(model), "precompiled_charsmap contradicts itself") << at;
  };
  refused(0, 0x3FFFFFU << 10, text);                        // the root's children lie outside
  refused(256 + 'a', 'a' | 0x200U | (0x3FFU << 10), text);  // so do those of "a"
  refused(value, 0x80000002U, text);                        // a text behind the end
  refused(0, sound[0], "b");                                // a text without an end
  for (const std::size_t size : {1U, 4U, 5U, 100U, 2052U}) {
    model.character_map = character_map(sound, text).substr(0, size);
    EXPECT_EQ(check_sentencepiece_model(model).code(), StatusCode::kCorrupt) << size;
  }
}

}  // namespace
}  // namespace lanner
