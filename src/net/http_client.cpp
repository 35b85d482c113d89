#include "net/http_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "net/http_connection.h"

namespace lanner::net {
namespace {

constexpr std::size_t kMaxIdleConnections = 4;
constexpr std::size_t kMaxHeaderBytes = 16 << 10;  // of one header that is sent
constexpr std::int64_t kMaxDrainBytes = 64 << 10;  // of a redirect's body, to keep the connection

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c > ' ' && c < 127 && c != ':'; });
}

/// However it is written: what a caller put among the other headers is no less a secret.
bool is_authorization(std::string_view name) {
  return std::ranges::equal(name, std::string_view("authorization"),
                            [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

Status check_headers(const HttpHeaders& headers) {
  for (const auto& [name, value] : headers) {
    const bool clean = std::ranges::none_of(value, [](char c) { return (c >= 0 && c < ' ') || c == 127; });
    if (!is_token(name) || !clean) return invalid_argument("a header holds characters that no header may hold");
    if (name.size() + value.size() > kMaxHeaderBytes) return invalid_argument("a header is too long to be sent");
  }
  return {};
}

class Client final : public HttpClient {
 public:
  explicit Client(HttpClientOptions options) : options_(std::move(options)) {}

  Result<HttpHead> exchange(const HttpRequest& request, BodySink& sink) override {
    LANNER_ASSIGN_OR_RETURN(Url url, parse_url(request.url));
    HttpRequest hop = request;
    Patience patience{.cancelled = request.cancelled};
    if (request.total_timeout.count() > 0) patience = patience.at_most(request.total_timeout);
    if (!is_token(request.method)) return invalid_argument("the method of a request is no word");
    hop.headers.emplace_back("User-Agent", options_.user_agent);
    // Files are checked against their size and hash as they are stored.
    hop.headers.emplace_back("Accept-Encoding", "identity");
    if (!request.authorization.empty()) hop.headers.emplace_back("Authorization", request.authorization);
    LANNER_RETURN_IF_ERROR(check_headers(hop.headers));
    const Url first = url;
    for (int hops = 0; hops <= options_.max_redirects; ++hops) {
      LANNER_ASSIGN_OR_RETURN(Answer answer, ask(hop, url, patience));
      answer.head.url = url.text();
      const std::string location(answer.head.header("location"));
      const bool follow =
          is_redirect(answer.head.status) && !location.empty() && (request.method == "GET" || request.method == "HEAD");
      if (!follow) return receive(std::move(answer), url, sink, patience);
      LANNER_RETURN_IF_ERROR(sink.redirect(answer.head));
      drain(std::move(answer), url, patience);
      LANNER_ASSIGN_OR_RETURN(const Url next, next_url(url, location));
      if (!next.same_origin(first)) {
        std::erase_if(hop.headers, [](const auto& field) { return is_authorization(field.first); });
      }
      url = next;
    }
    return corrupt(fmt::format("{}: more than {} redirects", first.origin(), options_.max_redirects));
  }

 private:
  struct Answer {
    HttpHead head;
    std::unique_ptr<Connection> connection;
  };

  static Result<Url> next_url(const Url& from, std::string_view location) {
    const Result<Url> next = resolve_reference(from, location);
    if (!next.ok())
      return corrupt(fmt::format("{}: a redirect leads nowhere: {}", from.origin(), next.status().message()));
    const bool local = is_loopback(from.host) && is_loopback(next->host);
    if (from.https && !next->https && !local) {
      return corrupt(
          fmt::format("{}: a redirect leads from https to {}, without encryption", from.origin(), next->origin()));
    }
    return *next;
  }

  BodyPace pace() const { return {options_.idle_timeout, options_.minimum_bytes_per_second}; }

  /// Sends the request over an idle connection, or a new one when there is none or it turns out to be dead.
  Result<Answer> ask(const HttpRequest& request, const Url& url, const Patience& patience) {
    if (auto idle = take_idle(url)) {
      Result<HttpHead> head =
          idle->send(request, url, options_.max_header_bytes, patience.at_most(options_.head_timeout));
      if (head.ok()) return Answer{*std::move(head), std::move(idle)};
      const bool again =
          head.status().code() == StatusCode::kIo && (request.method == "GET" || request.method == "HEAD");
      if (!again) return head.status();
    }
    if (url.https && tls_ == nullptr) tls_ = make_tls_settings();  // reading the certificates takes a while
    LANNER_ASSIGN_OR_RETURN(const Proxy proxy, proxy_for(url, options_.proxies));
    LANNER_ASSIGN_OR_RETURN(auto connection, open_connection(url, {proxy, options_.user_agent}, tls_.get(),
                                                             patience.at_most(options_.connect_timeout)));
    LANNER_ASSIGN_OR_RETURN(HttpHead head, connection->send(request, url, options_.max_header_bytes,
                                                            patience.at_most(options_.head_timeout)));
    return Answer{std::move(head), std::move(connection)};
  }

  Result<HttpHead> receive(Answer answer, const Url& url, BodySink& sink, const Patience& patience) {
    const std::string_view coding = answer.head.header("content-encoding");
    if (!coding.empty() && coding != "identity") {
      return corrupt(fmt::format("{}: answers with a content encoding that nobody asked for", url.origin()));
    }
    LANNER_RETURN_IF_ERROR(sink.begin(answer.head));
    LANNER_RETURN_IF_ERROR(
        answer.connection->read_body(pace(), patience, [&](std::string_view bytes) { return sink.write(bytes); }));
    keep(url, std::move(answer.connection));
    return std::move(answer.head);
  }

  /// Reads what little stands in a redirect's body, so that the connection can be used again; gives it up otherwise.
  void drain(Answer answer, const Url& url, const Patience& patience) {
    std::int64_t left = kMaxDrainBytes;
    const Status status = answer.connection->read_body(pace(), patience, [&](std::string_view bytes) {
      left -= static_cast<std::int64_t>(bytes.size());
      return left >= 0 ? Status() : corrupt("longer than worth reading");
    });
    if (status.ok()) keep(url, std::move(answer.connection));
  }

  std::unique_ptr<Connection> take_idle(const Url& url) {
    const auto found = idle_.find(url.origin());
    if (found == idle_.end()) return nullptr;
    std::unique_ptr<Connection> connection = std::move(found->second);
    idle_.erase(found);
    return connection->stale() ? nullptr : std::move(connection);
  }

  void keep(const Url& url, std::unique_ptr<Connection> connection) {
    if (!connection->reusable()) return;
    if (idle_.size() >= kMaxIdleConnections) idle_.clear();
    idle_.insert_or_assign(url.origin(), std::move(connection));
  }

  const HttpClientOptions options_;
  std::shared_ptr<TlsSettings> tls_;
  std::map<std::string, std::unique_ptr<Connection>> idle_;  // by origin
};

}  // namespace

std::unique_ptr<HttpClient> make_http_client(HttpClientOptions options) {
  return std::make_unique<Client>(std::move(options));
}

}  // namespace lanner::net
