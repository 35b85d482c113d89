#pragma once
// An HTTP/1.1 client over TCP and TLS, for whatever in the program fetches something: model files, other servers.
//
//   const auto client = make_http_client({.user_agent = "lanner/1"});
//   LANNER_ASSIGN_OR_RETURN(const HttpResponse answer, fetch(*client, {.url = "https://…/api"}, 1 << 20));
//   if (answer.head.status != 200) …
//
// Each call does one request and blocks until the answer is whole, has failed, or `cancelled` is set, which is noticed
// within a tenth of a second. A status such as 404 is an answer, not a failure. Redirects are followed for GET and
// HEAD; the Authorization header stays behind when one leads to another origin, and https never leads back to http,
// unless both ends are this machine. Certificates are checked against the system's (SSL_CERT_FILE and SSL_CERT_DIR name
// others), and so is the host's name. Connections are kept for the next request to the same origin.
//
// Failures by code: kIo is a broken, refused or silent connection, worth another try; kCorrupt is a peer that breaks
// the protocol or a limit, or whose certificate is wrong; kCancelled; kInvalidArgument is an address that cannot be
// used; and whatever the sink returns.
//
// Threads: one call at a time on one client.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lanner/status.h"
#include "net/url.h"

namespace lanner::net {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

/// What stands before the body of an answer. Names of headers are in lower case.
struct HttpHead {
  int status = 0;
  HttpHeaders headers;
  std::string url;  // that answered: behind all redirects

  /// The first header of this (lower case) name; empty when there is none.
  std::string_view header(std::string_view name) const;
  /// Content-Length, when it is there and is a number.
  std::optional<std::int64_t> content_length() const;
};

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  HttpHeaders headers;
  std::string authorization;  // the value of the header, such as "Bearer …"; sent to the first origin alone
  std::string body;
  /// The whole exchange must be over by then; zero: no limit beside those of the client.
  std::chrono::milliseconds total_timeout{0};
  const std::atomic<bool>* cancelled = nullptr;
};

/// Takes the answer as it comes.
class BodySink {
 public:
  virtual ~BodySink() = default;
  /// Each redirect on the way; by default of no interest.
  virtual Status redirect(const HttpHead& head);
  /// Once, before the body. A failure ends the exchange.
  virtual Status begin(const HttpHead& head) = 0;
  virtual Status write(std::string_view bytes) = 0;
};

struct HttpClientOptions {
  std::string user_agent = "lanner";
  std::chrono::milliseconds connect_timeout{10'000};  // name, connection and TLS together
  std::chrono::milliseconds head_timeout{30'000};     // from the request to the end of the answer's head
  std::chrono::milliseconds idle_timeout{30'000};     // without a byte of the body
  /// A body that brings less than this over three idle_timeouts counts as silent, too.
  std::int64_t minimum_bytes_per_second = 1024;
  std::uint32_t max_header_bytes = 16 << 10;
  int max_redirects = 10;
  ProxySettings proxies;
};

class HttpClient {
 public:
  virtual ~HttpClient() = default;
  /// The head that ended the chain of redirects; the body went to the sink.
  virtual Result<HttpHead> exchange(const HttpRequest& request, BodySink& sink) = 0;
};

std::unique_ptr<HttpClient> make_http_client(HttpClientOptions options);

struct HttpResponse {
  HttpHead head;
  std::string body;
};

/// An answer that fits in memory: kCorrupt when its body is longer than `max_body_bytes`.
Result<HttpResponse> fetch(HttpClient& client, const HttpRequest& request, std::int64_t max_body_bytes);

/// Seconds that a Retry-After header asks for: a number, or an HTTP date seen from `now`; nothing when it is neither.
std::optional<std::chrono::seconds> retry_after(std::string_view header, std::chrono::system_clock::time_point now);

}  // namespace lanner::net
