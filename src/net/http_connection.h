#pragma once
// One connection to a server, through a proxy or not, with or without TLS: what http_client.cpp makes requests with.
// The libraries behind it (Boost.Beast, OpenSSL) stay in http_connection.cpp.
//
// open() → send() → read_body() → send() … while reusable(). After a failure the connection is of no more use.

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "lanner/status.h"
#include "net/http_client.h"
#include "net/url.h"

namespace lanner::net {

/// How long to wait, and for whom.
struct Patience {
  std::chrono::steady_clock::time_point until = std::chrono::steady_clock::time_point::max();
  const std::atomic<bool>* cancelled = nullptr;

  /// The same, but no longer than `timeout` from now.
  Patience at_most(std::chrono::milliseconds timeout) const;
  bool is_cancelled() const { return cancelled != nullptr && cancelled->load(std::memory_order_relaxed); }
};

/// How much a body may dawdle: HttpClientOptions has the words.
struct BodyPace {
  std::chrono::milliseconds idle_timeout{0};
  std::int64_t minimum_bytes_per_second = 0;
};

class Connection {
 public:
  virtual ~Connection() = default;

  /// Writes the request and reads the head of the answer, in which `url` stays empty. Headers must hold no line ends.
  virtual Result<HttpHead> send(const HttpRequest& request, const Url& url, std::uint32_t max_header_bytes,
                                const Patience& patience) = 0;
  /// The body of that answer. What `write` returns ends the reading when it is a failure.
  virtual Status read_body(const BodyPace& pace, const Patience& patience,
                           const std::function<Status(std::string_view)>& write) = 0;

  /// Whether the answer was read to its end and both sides want to go on.
  virtual bool reusable() const = 0;
  /// Whether an idle connection was closed by the other side, as far as this one knows.
  virtual bool stale() = 0;
};

struct ConnectionOptions {
  Proxy proxy;
  std::string user_agent;  // for the proxy's eyes
};

/// The certificates and settings of TLS, loaded once for many connections.
class TlsSettings;
std::shared_ptr<TlsSettings> make_tls_settings();

/// `tls` is needed for https addresses alone.
Result<std::unique_ptr<Connection>> open_connection(const Url& url, const ConnectionOptions& options, TlsSettings* tls,
                                                    const Patience& patience);

}  // namespace lanner::net
