#include "model/json_reader.h"

#include <gtest/gtest.h>

#include <ctime>

namespace lanner::model {
namespace {

Status parse_status(std::string_view text, const JsonLimits& limits = {}) {
  return parse_json(text, "file.json", limits).status();
}

TEST(JsonReader, ReadsWhatNlohmannReads) {
  const std::string text = R"({"a": [1, -2, 2.5, true, null, "x\u00e9"], "b": {"c": {}}, "d": 18446744073709551615})";
  const auto json = parse_json(text, "file.json", {});
  ASSERT_TRUE(json.ok()) << json.status().message();
  EXPECT_EQ(*json, Json::parse(text));
}

TEST(JsonReader, RefusesDuplicateKeysAtEveryDepth) {
  EXPECT_EQ(parse_status(R"({"a": 1, "a": 2})").message(), "file.json: a: is there twice");
  EXPECT_EQ(parse_status(R"([{"b": {"a": 1, "a": 1}}])").code(), StatusCode::kCorrupt);
  EXPECT_TRUE(parse_status(R"({"a": {"a": 1}, "b": {"a": 2}})").ok());
}

TEST(JsonReader, LimitsDepth) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(parse_status(nested(64)).ok());
  EXPECT_EQ(parse_status(nested(65)).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(parse_status(std::string(1'000'000, '[')).code(), StatusCode::kResourceExhausted);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += R"({"a":)";
  EXPECT_EQ(parse_status(objects).code(), StatusCode::kResourceExhausted);
}

TEST(JsonReader, LimitsSizeAndCount) {
  EXPECT_EQ(parse_status("[1, 2, 3]", {.max_bytes = 8}).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(parse_status("[1, 2, 3]", {.max_values = 3}).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(parse_status("[1, 2, 3]", {.max_values = 4}).ok());
}

TEST(JsonReader, RefusesWhatIsNotJson) {
  for (const char* text : {"", " ", "{", "{]", "{\"a\":}", "nan", "[NaN]", "[Infinity]", "[1e999]", "{} {}", "[1,]",
                           "\"\xff\"", "\"\xc0\xaf\"", "{'a': 1}", "// no\n{}"}) {
    const Status status = parse_status(text);
    EXPECT_EQ(status.code(), StatusCode::kCorrupt) << text;
    EXPECT_EQ(status.message().find('\n'), std::string::npos) << text;
  }
}

TEST(JsonReader, ManyKeysTakeLinearTime) {
  std::string text = "{\"k\": 0";
  for (int i = 0; i < 200'000; ++i) text += ",\"key" + std::to_string(i) + "\":1";
  text += "}";
  const std::clock_t start = std::clock();  // of this process: other work on the machine does not count
  const auto json = parse_json(text, "file.json", {});
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(json->size(), 200'001U);
  // Quadratic insertion would take 2e10 comparisons, a minute and more.
  EXPECT_LT(std::clock() - start, 20 * CLOCKS_PER_SEC);
}

TEST(JsonFields, ChecksTypesAndRanges) {
  const Json json = Json::parse(R"({"i": 7, "big": 18446744073709551615, "f": 0.5, "s": "x", "b": true, "n": null,
                                    "o": {"i": 9}})");
  const JsonFields fields(json, "config.json");
  EXPECT_EQ(*fields.integer("i", 1, 7), 7);
  EXPECT_EQ(fields.integer("i", 1, 6).status().message(), "config.json: i: 7 is not in 1..6");
  EXPECT_EQ(fields.integer("big", 0, INT64_MAX).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(fields.integer("f", 0, 9).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(fields.integer("b", 0, 9).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(fields.integer("gone", 0, 9).status().message(), "config.json: gone: is missing");
  EXPECT_EQ(*fields.integer_or("n", 0, 9, 3), 3);
  EXPECT_EQ(fields.integer_or("s", 0, 9, 3).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(*fields.number("i", 0, 9), 7.0);
  EXPECT_EQ(fields.number("f", 1, 2).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(fields.boolean_or("i", true).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(fields.text("i").status().code(), StatusCode::kCorrupt);
  EXPECT_FALSE(fields.optional_number("n", 0, 1)->has_value());
  const auto inner = fields.object("o");
  ASSERT_TRUE(inner.ok() && *inner);
  EXPECT_EQ((*inner)->integer("i", 0, 1).status().message(), "config.json: o: i: 9 is not in 0..1");
  EXPECT_EQ(fields.object("i").status().code(), StatusCode::kCorrupt);
}

TEST(JsonFields, ListsOfNumbers) {
  const Json json = Json::parse(R"({"good": [1, 2.5], "text": [1, "2"], "null": [1, null], "empty": [], "number": 1})");
  const JsonFields fields(json, "config.json");
  EXPECT_EQ(*fields.numbers("good", 2, 0, 3), (std::vector<double>{1, 2.5}));
  EXPECT_TRUE(fields.numbers("empty", 0, 0, 1)->empty());
  EXPECT_EQ(fields.numbers("good", 3, 0, 3).status().message(), "config.json: good: is not a list of 3 numbers");
  EXPECT_EQ(fields.numbers("good", 2, 0, 2).status().message(), "config.json: good: holds 2.5, which is not in 0..2");
  for (const char* field : {"text", "null", "number", "gone"}) {
    EXPECT_EQ(fields.numbers(field, 2, 0, 3).status().code(), StatusCode::kCorrupt) << field;
  }
}

TEST(JsonFields, NullIsNotAbsent) {
  const Json json = Json::parse(R"({"null": null, "there": 1})");
  const JsonFields fields(json, "config.json");
  EXPECT_TRUE(fields.is_null("null"));
  EXPECT_FALSE(fields.is_null("there"));
  EXPECT_FALSE(fields.is_null("gone"));
}

TEST(Printable, ClipsAndCleans) {
  EXPECT_EQ(printable("a\nb\x1b\xc3\xa9"), "a?b???");
  EXPECT_EQ(printable(std::string(1000, 'a')).size(), 123U);
}

}  // namespace
}  // namespace lanner::model
