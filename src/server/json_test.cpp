// JSON from clients, and the checks of fields.

#include <gtest/gtest.h>

#include <array>
#include <string>

#include "server/fields.h"
#include "server/json.h"

namespace lanner::server {
namespace {

std::string failure(std::string_view text) { return parse_json(text).status().message(); }

TEST(ParseJson, ReadsValues) {
  const auto json = parse_json(R"({"b": [1, -2, 2.5, true, null, "x\u00e9"], "a": {"c": 18446744073709551615}})");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(to_text(*json), R"({"b":[1,-2,2.5,true,null,"xé"],"a":{"c":18446744073709551615}})");
  EXPECT_TRUE(parse_json("7").ok());
}

TEST(ParseJson, RefusesWhatIsNone) {
  EXPECT_EQ(failure(""), "the body: it is not valid JSON at byte 1");
  EXPECT_EQ(failure("{\"a\": NaN}"), "the body: it is not valid JSON at byte 7");
  EXPECT_EQ(failure("{\"a\": 1} x"), "the body: it is not valid JSON at byte 10");
  EXPECT_FALSE(parse_json("\"\xff\"").ok());     // no UTF-8
  EXPECT_FALSE(parse_json(R"("\ud800")").ok());  // half a pair
  EXPECT_FALSE(parse_json(std::string("1\0", 2)).ok());
  EXPECT_EQ(failure("[1e999]"), "the body: a number is out of range");
}

TEST(ParseJson, RefusesKeysThatStandTwice) {
  EXPECT_EQ(failure(R"({"a": 1, "b": {"a": 1}, "a": 2})"), "the body: the key \"a\" stands there twice");
  EXPECT_TRUE(parse_json(R"([{"a": 1}, {"a": 2}])").ok());
}

TEST(ParseJson, LimitsDepthAndCount) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(parse_json(nested(64)).ok());
  EXPECT_EQ(failure(nested(65)), "the body: it is nested deeper than 64 levels");
  EXPECT_FALSE(parse_json(std::string(3'000'000, '[')).ok());
  std::string many = "[0";
  for (int i = 0; i < 1'000'000; ++i) many += ",0";
  EXPECT_EQ(failure(many + "]"), "the body: it has more than 1000000 values");
}

TEST(ParseJson, LimitsTheMembersOfAnObject) {
  std::string text = "{\"k\":0";
  for (int i = 1; i < 1'024; ++i) text += ",\"" + std::to_string(i) + "\":0";
  EXPECT_TRUE(parse_json(text + "}").ok());
  EXPECT_TRUE(parse_json("[" + text + "}," + text + "}]").ok());  // each for itself
  EXPECT_EQ(failure(text + ",\"more\":0}"), "the body: an object has more than 1024 members");
}

constexpr std::array kTestFields{
    Field{"text", FieldKind::kString, "", 1, 10, true},
    Field{"share", FieldKind::kNumber, "", 0, 1},
    Field{"count", FieldKind::kInteger, "", 1, 128},
    Field{"flag", FieldKind::kBoolean, ""},
    Field{"stop", FieldKind::kStops, "", 0, 2},
    Field{"prompt", FieldKind::kPrompt, "", 1, 4},
    Field{"biases", FieldKind::kBiases, "", 0, 2},
    Field{"format", FieldKind::kObject, "", 0, 0, false, R"([{"type": "text"}])"},
};
constexpr std::array<Fields, 1> kTestTables{kTestFields};

std::string complaint(const char* more) {
  const auto refusal = check_fields(Json::parse(std::string(R"({"text": "x", )") + more + "}"), kTestTables);
  return refusal ? refusal->message : "";
}

TEST(CheckFields, TakesWhatFits) {
  EXPECT_EQ(complaint(R"("share": 1, "count": 3.0, "flag": false, "stop": "a", "prompt": [1, 2])"), "");
  EXPECT_EQ(complaint(R"("share": null, "stop": ["a", "b"], "prompt": [[1], [2]], "biases": {"5": -100})"), "");
  EXPECT_EQ(complaint(R"("format": {"type": "text"}, "prompt": ["a", "b"])"), "");
}

TEST(CheckFields, NamesWhatDoesNot) {
  EXPECT_EQ(complaint(R"("share": 1.5)"), "share: must be between 0 and 1");
  EXPECT_EQ(complaint(R"("share": "1")"), "share: must be a number");
  EXPECT_EQ(complaint(R"("count": 0)"), "count: must be between 1 and 128");
  EXPECT_EQ(complaint(R"("count": 1.5)"), "count: must be a whole number");
  EXPECT_EQ(complaint(R"("count": 1e30)"), "count: must be a whole number");
  EXPECT_EQ(complaint(R"("flag": 1)"), "flag: must be true or false");
  EXPECT_EQ(complaint(R"("stop": ["a", "b", "c"])"), "stop: must not be longer than 2");
  EXPECT_EQ(complaint(R"("stop": [""])"), "stop: a string must have 1 to 256 bytes");
  EXPECT_EQ(complaint(R"("stop": [1])"), "stop: must be a string or a list of strings");
  EXPECT_EQ(complaint(R"("prompt": [])"), "prompt: must not be empty");
  EXPECT_EQ(complaint(R"("prompt": ["a", [1]])"), "prompt: must be a string, a list of token ids, or a list of either");
  EXPECT_EQ(complaint(R"("prompt": [-1])"), "prompt: must be a string, a list of token ids, or a list of either");
  EXPECT_EQ(complaint(R"("prompt": [2147483648])"),
            "prompt: must be a string, a list of token ids, or a list of either");
  EXPECT_EQ(complaint(R"("biases": {"x": 1})"), "biases: 'x' is no token id");
  EXPECT_EQ(complaint(R"("biases": {"1": 101})"), "biases: a bias must be a number between -100 and 100");
  EXPECT_EQ(complaint(R"("format": {"type": "json_object"})"),
            R"(format: not available in this version beyond [{"type": "text"}])");
  EXPECT_EQ(complaint(R"("unheard": 1)"), "unheard: unknown field");
}

TEST(CheckFields, AsksForWhatIsRequired) {
  EXPECT_EQ(check_fields(Json::object(), kTestTables)->message, "text: this field is required");
  EXPECT_EQ(check_fields(Json{{"text", nullptr}}, kTestTables)->message, "text: this field is required");
  EXPECT_EQ(check_fields(Json::array(), kTestTables)->message, "the body must be a JSON object");
}

TEST(FieldsSchema, SaysTheSame) {
  const Json schema = fields_schema(kTestTables);
  EXPECT_EQ(schema["required"], Json::array({"text"}));
  EXPECT_EQ(schema["additionalProperties"], false);
  EXPECT_EQ(schema["properties"]["count"]["type"], Json::array({"integer", "null"}));
  EXPECT_EQ(schema["properties"]["count"]["maximum"], 128);
  EXPECT_EQ(schema["properties"]["format"]["enum"], Json::parse(R"([{"type": "text"}, null])"));
}

}  // namespace
}  // namespace lanner::server
