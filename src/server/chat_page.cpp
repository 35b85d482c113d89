#include "server/chat_page.h"

#include <fmt/format.h>

#include "net/base64.h"
#include "net/digest.h"

namespace lanner::server {
namespace {

unsigned digit(char c) { return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10); }

/// As a policy names a script or style.
std::string source_of(std::string_view text) {
  const std::string hex = net::sha256_hex(text);
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(digit(hex[i]) << 4U | digit(hex[i + 1]));
  }
  return fmt::format("'sha256-{}'", net::base64(bytes));
}

void put_in(std::string& page, std::string_view mark, std::string_view text) {
  const std::size_t at = page.find(mark);
  if (at != std::string::npos) page.replace(at, mark.size(), text);
}

ChatPage assembled(const ChatPageParts& parts) {
  ChatPage page;
  page.html = std::string(parts.page);
  put_in(page.html, "@STYLE@", parts.style);
  put_in(page.html, "@SCRIPT@", parts.script);
  page.policy = fmt::format(
      "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; base-uri 'none'; "
      "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
      source_of(parts.script), source_of(parts.style));
  return page;
}

}  // namespace

const ChatPage& chat_page() {
  static const ChatPage page = assembled(kChatPageParts);
  return page;
}

}  // namespace lanner::server
