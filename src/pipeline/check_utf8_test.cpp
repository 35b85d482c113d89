#include "pipeline/check_utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace lanner {
namespace {

std::string bad_byte(std::size_t place) { return "it is not UTF-8: byte " + std::to_string(place) + " is wrong"; }

TEST(CheckUtf8, NamesTheTextAndTheFirstBadByte) {
  const auto message = [](std::string_view text) { return check_utf8(text, "it").message(); };
  EXPECT_TRUE(check_utf8("", "it").ok());
  EXPECT_TRUE(check_utf8("aé上😀", "it").ok());
  EXPECT_TRUE(check_utf8("\xF4\x8F\xBF\xBF", "it").ok());
  EXPECT_EQ(check_utf8("\xFF", "it").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(message("ab\xFF"), bad_byte(2));
  EXPECT_EQ(message("a\xC0\x80"), bad_byte(1));         // overlong
  EXPECT_EQ(message("a\xE0\x9F\xBF"), bad_byte(1));     // overlong
  EXPECT_EQ(message("\xED\xA0\x80"), bad_byte(0));      // surrogate
  EXPECT_EQ(message("\xF4\x90\x80\x80"), bad_byte(0));  // beyond U+10FFFF
  EXPECT_EQ(message("abc\xE4\xB8"), bad_byte(3));       // cut off
  EXPECT_EQ(message("\x80"), bad_byte(0));
}

}  // namespace
}  // namespace lanner
