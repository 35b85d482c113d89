#include "net/digest.h"

#include <gtest/gtest.h>

#include <string>

namespace lanner::net {
namespace {

std::string digest_of(std::string_view name, std::string_view content) {
  Result<Digest> digest = Digest::for_name(name, static_cast<std::int64_t>(content.size()));
  if (!digest.ok()) return digest.status().message();
  // In two pieces, as a download brings it.
  digest->add(content.substr(0, content.size() / 2));
  digest->add(content.substr(content.size() / 2));
  return digest->finish();
}

TEST(Digest, OfALargeFileIsSha256) {
  // FIPS 180-2, "abc".
  EXPECT_EQ(digest_of(std::string(64, '0'), "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest_of(std::string(64, '0'), ""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Digest, OfASmallFileIsGitsBlob) {
  // git hash-object of an empty file, and of "hello\n".
  EXPECT_EQ(digest_of(std::string(40, '0'), ""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
  EXPECT_EQ(digest_of(std::string(40, '0'), "hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
}

TEST(Digest, HasANameThatIsSafeAsAFile) {
  EXPECT_TRUE(is_digest_name(std::string(40, 'a')));
  EXPECT_TRUE(is_digest_name(std::string(64, '9')));
  for (const std::string& name :
       {std::string(), std::string(39, 'a'), std::string(65, 'a'), std::string(40, 'A'), std::string(40, 'g'),
        "../" + std::string(37, 'a'), std::string(39, 'a') + "/", std::string(39, 'a') + '\0'}) {
    EXPECT_FALSE(is_digest_name(name)) << name;
    EXPECT_FALSE(Digest::for_name(name, 0).ok()) << name;
  }
}

}  // namespace
}  // namespace lanner::net
