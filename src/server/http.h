#pragma once
// One HTTP exchange as values: what was asked and what is answered. No socket and no library of one is seen here, so
// that everything above can be tested without them.

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lanner::server {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string id;      // names the exchange in the log and in X-Request-Id
  std::string method;  // "GET"
  std::string path;    // "/v1/models", as it was sent: never decoded
  std::string query;   // what stood behind "?"
  Headers headers;     // names in lower case
  std::string body;
  std::string peer;  // address of the client
  /// True once nobody waits for the answer any more; null where nobody watches.
  std::shared_ptr<const std::atomic<bool>> client_left;

  /// The first header of this (lower case) name; empty when there is none.
  std::string_view header(std::string_view name) const {
    const auto found =
        std::ranges::find(headers, name, [](const auto& field) { return std::string_view(field.first); });
    return found == headers.end() ? std::string_view() : std::string_view(found->second);
  }
};

class LateAnswer;

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  Headers headers;
  std::string body;
  /// In place of the body: it is made while it is sent. A stream takes status, content type and headers from here.
  std::shared_ptr<LateAnswer> late;
};

/// An answer that comes bit by bit from another thread.
///
///   late.start(wake);             // once; wake() may come from any thread, also before start() has returned
///   after each wake(): take(), until it says that it is done
///
/// wake() is not called after cancel(), nor once take() has said that all is done. What has not been taken may be
/// dropped after cancel(): whatever the answer still owes to others (counters, limits) it settles on its own.
class LateAnswer {
 public:
  struct Piece {
    std::string bytes;  // of a stream; may be empty
    bool done = false;
    bool broken = false;  // done, and the client is to see that the answer is not whole
  };

  LateAnswer() = default;
  LateAnswer(const LateAnswer&) = delete;
  LateAnswer& operator=(const LateAnswer&) = delete;
  virtual ~LateAnswer() = default;

  virtual void start(std::function<void()> wake) = 0;
  /// What has come since the last call.
  virtual Piece take() = 0;
  /// Whether the bytes go to the client as they come. Otherwise there are none, and reply() has all in the end.
  virtual bool streams() const = 0;
  virtual HttpReply reply() = 0;
  /// Of a stream: whether its head is known, which is then put into `head`. Asked first, and again after each wake().
  virtual bool know_head(HttpReply& /*head*/) { return true; }
  /// Whether reply() may take a while, so that it is called on another thread.
  virtual bool reply_takes_long() const { return false; }
  /// Nobody waits any more.
  virtual void cancel() = 0;
};

}  // namespace lanner::server
