#include "net/url.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace lanner::net {
namespace {

std::string resolved(std::string_view base, std::string_view reference) {
  const Result<Url> from = parse_url(base);
  if (!from.ok()) return "base: " + from.status().message();
  const Result<Url> to = resolve_reference(*from, reference);
  return to.ok() ? to->text() : "refused";
}

TEST(Url, IsTakenApart) {
  const Result<Url> url = parse_url("HTTPS://Hub.Example:8443/api/models?x=1&y=%20#part");
  ASSERT_TRUE(url.ok()) << url.status().message();
  EXPECT_TRUE(url->https);
  EXPECT_EQ(url->host, "hub.example");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->target, "/api/models?x=1&y=%20");
  EXPECT_EQ(url->origin(), "https://hub.example:8443");
}

TEST(Url, HasThePortOfItsScheme) {
  EXPECT_EQ(parse_url("https://a")->port, 443);
  EXPECT_EQ(parse_url("http://a/")->port, 80);
  EXPECT_EQ(parse_url("http://a:80/x")->text(), "http://a/x");
  EXPECT_EQ(parse_url("https://a:80/x")->text(), "https://a:80/x");
  EXPECT_EQ(parse_url("http://a?q")->target, "/?q");
}

TEST(Url, KnowsIpv6) {
  const Result<Url> url = parse_url("http://[::1]:8080/x");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->authority(), "[::1]:8080");
}

TEST(Url, RefusesWhatIsNone) {
  for (const char* text : {"",
                           "http",
                           "ftp://a/",
                           "file:///etc/passwd",
                           "http://",
                           "http:///x",
                           "http://user@a/",
                           "http://user:secret@a/",
                           "http://a b/",
                           "http://a/ b",
                           "http://a/\r\nX: y",
                           "http://a:0/",
                           "http://a:65536/",
                           "http://a:-1/",
                           "http://a:80x/",
                           "http://[::1/",
                           "http://[zz]/",
                           "http://[::1]x/",
                           "http://a%00b/",
                           "javascript:alert(1)"}) {
    EXPECT_FALSE(parse_url(text).ok()) << text;
  }
  EXPECT_FALSE(parse_url("http://a/" + std::string(9000, 'x')).ok());
  EXPECT_FALSE(parse_url("http://" + std::string(300, 'a') + "/").ok());
}

TEST(Url, NeverRepeatsSecretsOrControlCharacters) {
  for (const char* text : {"http://user:secret@a/", "ftp://user:secret@a/", "http://user:se@cret@a:0/x",
                           "http://a:0/x?signature=secret", "http://a/?secret\x01", "http://a/\x01"}) {
    const std::string message = parse_url(text).status().message();
    EXPECT_EQ(message.find("cret"), std::string::npos) << message;
    EXPECT_EQ(message.find('\x01'), std::string::npos) << message;
  }
  EXPECT_EQ(parse_url("http://a:0/x?y").status().message(),
            "'http://a:0/x' is no address that can be fetched: its port");
}

TEST(Url, ResolvesReferences) {
  // RFC 3986, section 5.4, as far as it concerns http.
  constexpr const char* kBase = "http://a/b/c/d;p?q";
  const std::array<std::array<const char*, 2>, 21> cases{{
      {"g", "http://a/b/c/g"},        {"./g", "http://a/b/c/g"},
      {"g/", "http://a/b/c/g/"},      {"/g", "http://a/g"},
      {"//g", "http://g/"},           {"?y", "http://a/b/c/d;p?y"},
      {"g?y", "http://a/b/c/g?y"},    {"g#s", "http://a/b/c/g"},
      {";x", "http://a/b/c/;x"},      {"", "http://a/b/c/d;p?q"},
      {".", "http://a/b/c/"},         {"./", "http://a/b/c/"},
      {"..", "http://a/b/"},          {"../g", "http://a/b/g"},
      {"../..", "http://a/"},         {"../../g", "http://a/g"},
      {"../../../g", "http://a/g"},   {"/./g", "http://a/g"},
      {"/../g", "http://a/g"},        {"g;x=1/../y", "http://a/b/c/y"},
      {"https://x/y", "https://x/y"},
  }};
  for (const auto& [reference, expected] : cases) EXPECT_EQ(resolved(kBase, reference), expected) << reference;
  EXPECT_EQ(resolved("https://h/a", "//cdn/x"), "https://cdn/x");
  EXPECT_EQ(resolved(kBase, "file:///etc/passwd"), "refused");
  EXPECT_EQ(resolved(kBase, "g:h"), "refused");
}

TEST(Url, EncodesPercent) {
  EXPECT_EQ(percent_encode("a b/ü?&=#%"), "a%20b%2F%C3%BC%3F%26%3D%23%25");
  EXPECT_EQ(percent_encode("Q4_K_M/model-1.gguf", "/"), "Q4_K_M/model-1.gguf");
  EXPECT_EQ(percent_encode(std::string("\0\r\n", 3)), "%00%0D%0A");
}

TEST(Url, KnowsThisMachine) {
  for (const char* host : {"localhost", "127.0.0.1", "127.8.9.1", "::1", "x.localhost"}) {
    EXPECT_TRUE(is_loopback(host)) << host;
  }
  for (const char* host : {"127.evil.example", "10.0.0.1", "localhost.example", "example", "::2"}) {
    EXPECT_FALSE(is_loopback(host)) << host;
  }
}

std::string proxy(std::string_view url, const ProxySettings& settings) {
  const Result<Proxy> found = proxy_for(*parse_url(url), settings);
  if (!found.ok()) return "refused";
  return found->host.empty() ? "none" : found->host + ":" + std::to_string(found->port) + ":" + found->credentials;
}

TEST(Proxy, IsTheOneOfTheScheme) {
  const ProxySettings settings{.http = "http://plain:3128", .https = "secure:3129", .exceptions = ""};
  EXPECT_EQ(proxy("http://a/", settings), "plain:3128:");
  EXPECT_EQ(proxy("https://a/", settings), "secure:3129:");
  EXPECT_EQ(proxy("https://a/", {}), "none");
  EXPECT_EQ(proxy("http://127.0.0.1:99/", settings), "none");
}

TEST(Proxy, HasExceptions) {
  const ProxySettings settings{.http = "p:1", .https = "p:1", .exceptions = "Example.org, .inner, *.star,10.0.0.7"};
  for (const char* host : {"example.org", "a.example.org", "x.inner", "inner", "a.star", "10.0.0.7"}) {
    EXPECT_EQ(proxy("https://" + std::string(host), settings), "none") << host;
  }
  for (const char* host : {"notexample.org", "example.org.evil", "10.0.0.70", "xinner"}) {
    EXPECT_EQ(proxy("https://" + std::string(host), settings), "p:1:") << host;
  }
  EXPECT_EQ(proxy("https://a", {.https = "p:1", .exceptions = "*"}), "none");
}

TEST(Proxy, MayWantAPassword) {
  EXPECT_EQ(proxy("https://a", {.https = "http://me:p%40ss@p:8080/"}), "p:8080:me:p@ss");
  EXPECT_EQ(proxy("https://a", {.https = "socks5://p:1"}), "refused");
  EXPECT_EQ(proxy("https://a", {.https = "https://p:1"}), "refused");
  EXPECT_EQ(proxy("https://a", {.https = "p:99999"}), "refused");
}

}  // namespace
}  // namespace lanner::net
