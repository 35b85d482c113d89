#pragma once
// The page at /chat: one file without references to others, made of the parts in chat_page/. The browser runs and
// styles it with nothing but the script and the style in it: the policy names their hashes.

#include <string>
#include <string_view>

namespace lanner::server {

struct ChatPageParts {
  std::string_view page;  // with @STYLE@ and @SCRIPT@ where the others belong
  std::string_view style;
  std::string_view script;
};
/// The build writes it.
extern const ChatPageParts kChatPageParts;

struct ChatPage {
  std::string html;
  std::string policy;  // the header Content-Security-Policy
};
/// From any thread.
const ChatPage& chat_page();

}  // namespace lanner::server
