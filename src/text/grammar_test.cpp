// Masks of grammars over a vocabulary of bytes with a few longer tokens and special ones.

#include "text/grammar.h"

#include <gtest/gtest.h>

#include <ctime>

namespace lanner {
namespace {

constexpr std::int32_t kTrue = 256;    // "true"
constexpr std::int32_t kQuoted = 257;  // "\"a"
constexpr std::int32_t kMark = 258;    // special
constexpr std::int32_t kEnd = 259;
constexpr std::int32_t kOtherEnd = 260;
constexpr std::int32_t kNothing = 261;
constexpr std::size_t kTokens = 262;

/// Of this process: others may be busy.
double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

std::shared_ptr<const GrammarVocabulary> vocabulary() {
  std::vector<std::string> tokens;
  for (int i = 0; i < 256; ++i) tokens.emplace_back(1, static_cast<char>(i));
  tokens.insert(tokens.end(), {"true", "\"a", "<|mark|>", "<|end|>", "<|other|>", ""});
  std::vector<bool> special(kTokens, false);
  special[kMark] = special[kEnd] = special[kOtherEnd] = true;
  return *GrammarVocabulary::make(tokens, special, std::vector<std::int32_t>{kEnd, kOtherEnd});
}

class Follower {
 public:
  Follower(GrammarKind kind, std::string_view text) : grammar_(*vocabulary()->compile(kind, text)) {
    state_ = std::make_unique<GrammarState>(*grammar_->begin());
  }
  std::vector<bool> mask() {
    std::vector<std::uint32_t> words((kTokens + 31) / 32 + 1, 0xFFFFFFFF);
    const Status status = state_->allowed(words);
    EXPECT_TRUE(status.ok()) << status.message();
    std::vector<bool> bits;
    for (std::size_t i = 0; i < words.size() * 32; ++i) bits.push_back((words[i / 32] >> (i % 32) & 1U) != 0);
    for (std::size_t i = kTokens; i < bits.size(); ++i) EXPECT_FALSE(bits[i]) << "beyond the vocabulary: " << i;
    EXPECT_FALSE(bits[kNothing]);
    return bits;
  }
  bool allows(std::int32_t token) { return mask()[static_cast<std::size_t>(token)]; }
  /// Whether nothing may follow.
  bool say(std::string_view text) {
    bool ended = false;
    for (const char byte : text) {
      EXPECT_FALSE(ended);
      const auto result = state_->accept(static_cast<unsigned char>(byte));
      EXPECT_TRUE(result.ok()) << result.status().message();
      ended = result.ok() && *result;
    }
    return ended;
  }
  GrammarState& state() { return *state_; }

 private:
  std::shared_ptr<const Grammar> grammar_;
  std::unique_ptr<GrammarState> state_;
};

TEST(Grammar, FollowsARegularExpression) {
  Follower follower(GrammarKind::kRegex, "[ab]{2}c?");
  EXPECT_TRUE(follower.allows('a'));
  EXPECT_TRUE(follower.allows('b'));
  EXPECT_FALSE(follower.allows('c'));
  EXPECT_FALSE(follower.allows(kEnd));
  EXPECT_FALSE(follower.say("ab"));
  EXPECT_TRUE(follower.allows('c'));
  EXPECT_TRUE(follower.allows(kEnd));
  EXPECT_TRUE(follower.allows(kOtherEnd));
  EXPECT_FALSE(follower.allows(kMark));
  EXPECT_FALSE(follower.allows('a'));
  EXPECT_TRUE(follower.say("c"));
}

TEST(Grammar, FollowsASchema) {
  Follower follower(GrammarKind::kJsonSchema,
                    R"({"type":"object","properties":{"ok":{"type":"boolean"},"n":{"type":"integer"}},
                        "required":["ok","n"],"additionalProperties":false})");
  EXPECT_TRUE(follower.allows('{'));
  EXPECT_FALSE(follower.allows('['));
  EXPECT_FALSE(follower.say("{\"ok\": "));
  EXPECT_TRUE(follower.allows(kTrue));  // a token of four bytes
  EXPECT_FALSE(follower.allows(kQuoted));
  EXPECT_FALSE(follower.say("true,\n  \"n\":-12"));
  EXPECT_TRUE(follower.allows('7'));
  EXPECT_FALSE(follower.allows('.'));
  EXPECT_FALSE(follower.allows(','));
  EXPECT_FALSE(follower.allows(kEnd));
  EXPECT_TRUE(follower.say("}"));
}

TEST(Grammar, TakesTheBoundsOfSixtyFourBits) {
  Follower follower(GrammarKind::kJsonSchema,
                    R"({"type":"integer","minimum":-9223372036854775808,"maximum":9223372036854775807})");
  EXPECT_FALSE(follower.say("-99999999999999999"));
  EXPECT_TRUE(follower.allows('9'));
  EXPECT_TRUE(follower.say("9"));  // 18 digits and no more
}

TEST(Grammar, KeepsBlanksShort) {
  Follower follower(GrammarKind::kJsonSchema, R"({"type":"object"})");
  EXPECT_FALSE(follower.say("{\n" + std::string(40, ' ')));
  EXPECT_FALSE(follower.allows(' '));
  EXPECT_FALSE(follower.allows('\n'));
  EXPECT_TRUE(follower.allows('"'));
}

TEST(Grammar, FollowsALarkGrammarWithSpecialTokens) {
  Follower follower(GrammarKind::kLark, "start: <|mark|> \"x\" %json {\"type\":\"boolean\"}");
  EXPECT_TRUE(follower.allows(kMark));
  EXPECT_FALSE(follower.allows('<'));  // its spelling is not the token
  const auto taken = follower.state().accept(kMark);
  ASSERT_TRUE(taken.ok());
  EXPECT_FALSE(*taken);
  EXPECT_FALSE(follower.say("x"));
  EXPECT_TRUE(follower.allows('f'));
  EXPECT_TRUE(follower.allows(kTrue));
}

TEST(Grammar, TwoAnswersDoNotMeet) {
  const auto grammar = *vocabulary()->compile(GrammarKind::kRegex, "ab");
  GrammarState one = *grammar->begin();
  GrammarState two = *grammar->begin();
  ASSERT_TRUE(one.accept('a').ok());
  EXPECT_TRUE(two.accept('a').ok());
  EXPECT_FALSE(two.accept('a').ok());
  EXPECT_TRUE(*one.accept('b'));
}

TEST(Grammar, RefusesATokenThatMayNotCome) {
  Follower follower(GrammarKind::kRegex, "ab");
  EXPECT_EQ(follower.state().accept('x').status().code(), StatusCode::kInvalidArgument);
  std::vector<std::uint32_t> words((kTokens + 31) / 32);
  EXPECT_FALSE(follower.state().allowed(words).ok());  // for good
}

struct BadText {
  GrammarKind kind;
  std::string text;
  const char* says;
};

TEST(Grammar, SaysWhatIsWrongWithATextWithinASecond) {
  std::string deep;
  for (int i = 0; i < 300; ++i) deep += R"({"type":"array","items":)";
  deep += "true" + std::string(300, '}');
  std::string wide = R"({"type":")";
  for (int i = 0; i < 99; ++i) wide += "é";  // longer than what messages quote of it
  wide += R"("})";
  const std::vector<BadText> texts{
      {GrammarKind::kJsonSchema, wide, ""},
      {GrammarKind::kJsonSchema, R"({"enum":[-9223372036854775808]})", "too low"},
      {GrammarKind::kJsonSchema, R"({"const":-1e300})", "too low"},
      {GrammarKind::kLark, R"(start: "a-" %json {"const":-9223372036854775808})", "too low"},
      {GrammarKind::kLark, R"(start: %json {"type":"integer","minimum":-1e19,"maximum":-1e19})", "too low"},
      {GrammarKind::kLark, "start: " + std::string(10'000, '(') + "\"a\"" + std::string(10'000, ')'),
       "too deeply nested"},
      {GrammarKind::kRegex, std::string(10'000, '(') + "a" + std::string(10'000, ')'), "invalid regex"},
      {GrammarKind::kJsonSchema, "{", "no JSON"},
      {GrammarKind::kJsonSchema, "3", "is an object"},
      {GrammarKind::kJsonSchema, "false", ""},
      {GrammarKind::kJsonSchema, R"({"type":"strange"})", "strange"},
      {GrammarKind::kJsonSchema, R"({"x-guidance":{"lenient":true}})", "x-guidance"},
      {GrammarKind::kJsonSchema, R"({"$ref":"https://example.com/x.json"})", ""},
      {GrammarKind::kJsonSchema, R"({"type":"string","pattern":"(("})", ""},
      {GrammarKind::kJsonSchema, R"({"type":"array","uniqueItems":true})", "uniqueItems"},
      {GrammarKind::kJsonSchema, deep, ""},
      {GrammarKind::kJsonSchema, std::string(2 << 20, ' '), "bytes"},
      {GrammarKind::kRegex, "(", ""},
      {GrammarKind::kLark, "start: nothing", "nothing"},
      {GrammarKind::kLark, "", ""},
      {GrammarKind::kLark, "\xFF", "UTF-8"},
  };
  const auto compiler = vocabulary();
  for (const BadText& bad : texts) {
    const double begin = processor_seconds();
    const auto result = compiler->compile(bad.kind, bad.text);
    EXPECT_LT(processor_seconds() - begin, 1) << bad.text.substr(0, 80);
    ASSERT_FALSE(result.ok()) << bad.text.substr(0, 80);
    EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument) << bad.text.substr(0, 80);
    EXPECT_NE(result.status().message().find(bad.says), std::string::npos) << result.status().message();
  }
}

TEST(Grammar, EndsWhatIsTooComplexInTime) {
  std::string members;
  for (int i = 0; i < 12'000; ++i) {
    if (i > 0) members += ',';
    members += R"("member)";
    members += std::to_string(i);
    members += R"(":{"type":"string","pattern":"^a{1,900}$"})";
  }
  const std::vector<BadText> texts{
      {GrammarKind::kJsonSchema, R"({"type":"object","properties":{)" + members + "}}", ""},
      {GrammarKind::kRegex, "((a{1,1000}){1,1000}b?){1,1000}c", ""},
      {GrammarKind::kRegex, "(.*a.{500}){20}", ""},
  };
  const auto compiler = vocabulary();
  for (const BadText& text : texts) {
    const double begin = processor_seconds();
    const auto result = compiler->compile(text.kind, text.text);
    EXPECT_LT(processor_seconds() - begin, 2) << text.text.substr(0, 60);
    EXPECT_TRUE(result.ok() || result.status().code() != StatusCode::kInternal) << result.status().message();
  }
}

}  // namespace
}  // namespace lanner
