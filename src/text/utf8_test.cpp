#include "text/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace lanner {
namespace {

std::string lossy(std::string_view bytes) {
  std::string text;
  append_lossy(text, bytes);
  return text;
}

TEST(Utf8, KnowsWhatIsNone) {
  EXPECT_EQ(utf8_prefix("a\xC3\xA9\xE4\xBD\xA0\xF0\x9F\x98\x80"), 10U);
  for (const char* bad : {"a\xC0\x80", "a\xC3", "a\xE0\x80\x80", "a\xED\xA0\x80", "a\xF4\x90\x80\x80",
                          "a\xF8\x88\x80\x80\x80", "a\x80", "a\xE4\xBD"}) {
    EXPECT_EQ(utf8_prefix(bad), 1U) << bad;
  }
  EXPECT_EQ(first_character("\xF4\x8F\xBF\xBF").code, 0x10FFFFU);
  EXPECT_EQ(first_character("").bytes, 0U);
}

TEST(Utf8, TextsAreCheckedBeforeUse) {
  EXPECT_TRUE(check_text("", 0).ok());
  EXPECT_TRUE(check_text("a\xC3\xA9", 3).ok());
  EXPECT_EQ(check_text("abc", 2).message(), "a text of 3 bytes is longer than the 2 allowed");
  EXPECT_EQ(check_text("a\xC3", 2).message(), "the text is not UTF-8 at byte 1");
}

// What Python's bytes.decode(errors="replace") gives for the same bytes.
TEST(Utf8, ReplacesAsPythonDoes) {
  const std::string fffd(kReplacementCharacter);
  EXPECT_EQ(lossy("a\xE4\xBD"), "a" + fffd);
  EXPECT_EQ(lossy("\xE4\xBDz"), fffd + "z");
  EXPECT_EQ(lossy("\xED\xA0\x80"), fffd + fffd + fffd);
  EXPECT_EQ(lossy("\xF0\x9F\x98"), fffd);
  EXPECT_EQ(lossy("\xF0\x80\x80"), fffd + fffd + fffd);
  EXPECT_EQ(lossy("\xF4\x90\x80\x80"), fffd + fffd + fffd + fffd);
  EXPECT_EQ(lossy("\xC3\xC3\xA9\xFF"), fffd + "\xC3\xA9" + fffd);
}

}  // namespace
}  // namespace lanner
