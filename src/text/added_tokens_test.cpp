#include "text/added_tokens.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace lanner {
namespace {

AddedTokens make(std::vector<AddedToken> tokens) {
  auto made = AddedTokens::make(std::move(tokens));
  EXPECT_TRUE(made.ok()) << made.status().message();
  return made.ok() ? *std::move(made) : AddedTokens();
}

/// "plain|<7>plain": ordinary text as it is, tokens by their ids.
std::string cut(const AddedTokens& tokens, std::string_view text, bool parse_special = true) {
  std::string out;
  for (const TextStretch& stretch : tokens.split(text, parse_special)) {
    out += out.empty() ? "" : "|";
    out += stretch.token != nullptr ? fmt::format("<{}>", stretch.token->id) : std::string(stretch.text);
  }
  return out;
}

TEST(AddedTokens, TheLeftmostAndLongestWins) {
  const AddedTokens tokens =
      make({{.id = 1, .content = "ab"}, {.id = 2, .content = "abc"}, {.id = 3, .content = "bcd"}});
  EXPECT_EQ(cut(tokens, "abcd"), "<2>|d");
  EXPECT_EQ(cut(tokens, "xbcdab"), "x|<3>|<1>");
  EXPECT_EQ(cut(tokens, "abab"), "<1>|<1>");
  EXPECT_EQ(cut(tokens, ""), "");
  EXPECT_EQ(cut(AddedTokens(), "ab"), "ab");
}

TEST(AddedTokens, SpecialTokensAreReadOnRequest) {
  const AddedTokens tokens = make({{.id = 1, .content = "<s>"}, {.id = 2, .content = "<t>", .special = false}});
  EXPECT_EQ(cut(tokens, "<s><t>", false), "<s>|<2>");
}

TEST(AddedTokens, SomeStandOnlyBehindOthers) {
  const AddedTokens tokens = make({{.id = 1, .content = "sop", .only_behind = true}, {.id = 2, .content = "[gMASK]"}});
  EXPECT_EQ(cut(tokens, "philosophy sop"), "philosophy sop");
  EXPECT_EQ(cut(tokens, "sop[gMASK]sopsop sop"), "sop|<2>|<1>|<1>| sop");
}

TEST(AddedTokens, TakeBlanksAlong) {
  const AddedTokens tokens =
      make({{.id = 1, .content = "<l>", .lstrip = true}, {.id = 2, .content = "<r>", .rstrip = true}});
  EXPECT_EQ(cut(tokens, "a \n\xE3\x80\x80<l> b"), "a|<1>| b");
  EXPECT_EQ(cut(tokens, "a <r>\t \xC2\xA0 b"), "a |<2>|b");
  EXPECT_EQ(cut(tokens, " <l><r> "), "<1>|<2>");
  // The blank belongs to the token on the left already.
  EXPECT_EQ(cut(tokens, "<r> <l>"), "<2>|<1>");
}

TEST(AddedTokens, StandAloneWhereTheyMust) {
  const AddedTokens tokens = make({{.id = 1, .content = "to", .single_word = true}});
  EXPECT_EQ(cut(tokens, "to top to_ into to"), "<1>| top to_ into |<1>");
  EXPECT_EQ(cut(tokens, "\xC3\xA9to,to"), "\xC3\xA9to,|<1>");
}

TEST(AddedTokens, RefuseWhatContradictsItself) {
  const auto status = [](std::vector<AddedToken> tokens) {
    return AddedTokens::make(std::move(tokens)).status().code();
  };
  EXPECT_EQ(status({{.id = 1, .content = ""}}), StatusCode::kCorrupt);
  EXPECT_EQ(status({{.id = -1, .content = "a"}}), StatusCode::kCorrupt);
  EXPECT_EQ(status({{.id = 1 << 24, .content = "a"}}), StatusCode::kCorrupt);
  EXPECT_EQ(status({{.id = 1, .content = "a"}, {.id = 1, .content = "b"}}), StatusCode::kCorrupt);
  EXPECT_EQ(status({{.id = 1, .content = "a"}, {.id = 2, .content = "a"}}), StatusCode::kCorrupt);
  EXPECT_EQ(status({{.id = 1, .content = "\xFF"}}), StatusCode::kCorrupt);
  EXPECT_EQ(status({{.id = 1, .content = std::string(1025, 'a')}}), StatusCode::kCorrupt);
}

}  // namespace
}  // namespace lanner
