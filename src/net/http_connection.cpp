// <utility> stands before Asio: with g++ 12, Asio 1.81 uses std::exchange without including it.
#include <utility>

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>
#include <vector>

#include "net/base64.h"
#include "net/http_connection.h"

namespace lanner::net {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Endpoint = asio::ip::tcp::endpoint;

class TlsSettings {
 public:
  TlsSettings() : context_(asio::ssl::context::tls_client) {
    std::ignore = context_.set_default_verify_paths(error_);
    if (!error_) std::ignore = context_.set_verify_mode(asio::ssl::verify_peer, error_);
    if (SSL_CTX_set_min_proto_version(context_.native_handle(), TLS1_2_VERSION) != 1) {
      error_ = asio::error::operation_not_supported;
    }
  }
  asio::ssl::context& context() { return context_; }
  const error_code& error() const { return error_; }

 private:
  asio::ssl::context context_;
  error_code error_;
};

std::shared_ptr<TlsSettings> make_tls_settings() { return std::make_shared<TlsSettings>(); }

Patience Patience::at_most(std::chrono::milliseconds timeout) const {
  return {std::min(until, Clock::now() + timeout), cancelled};
}

namespace {

constexpr auto kTick = std::chrono::milliseconds(100);  // how soon a cancel is noticed
constexpr std::size_t kReadBytes = 256 << 10;
constexpr std::size_t kProxyHeadBytes = 16 << 10;
constexpr int kMaxInformationalHeads = 8;

Status cancelled_status() { return {StatusCode::kCancelled, "stopped on request"}; }

/// What getaddrinfo finds. It can take as long as it likes and cannot be stopped, so it runs on a thread of its own,
/// which nobody waits for in the end.
class Lookup {
 public:
  static Result<std::vector<Endpoint>> run(const std::string& host, std::uint16_t port, const Patience& patience) {
    error_code error;
    const asio::ip::address address = asio::ip::make_address(host, error);
    if (!error) return std::vector<Endpoint>{Endpoint(address, port)};
    const auto lookup = std::make_shared<Lookup>();
    std::thread([lookup, host, port] { lookup->work(host, port); }).detach();
    return lookup->wait(host, patience);
  }

 private:
  void work(const std::string& host, std::uint16_t port) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
    addrinfo* list = nullptr;
    const int code = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
    const std::lock_guard lock(mutex_);
    for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
      Endpoint endpoint;
      if (entry->ai_addrlen > endpoint.capacity()) continue;
      std::copy_n(reinterpret_cast<const char*>(entry->ai_addr), entry->ai_addrlen,
                  reinterpret_cast<char*>(endpoint.data()));
      endpoint.resize(entry->ai_addrlen);
      found_.push_back(endpoint);
    }
    if (list != nullptr) ::freeaddrinfo(list);
    error_ = code;
    done_ = true;
    changed_.notify_all();
  }

  Result<std::vector<Endpoint>> wait(const std::string& host, const Patience& patience) {
    std::unique_lock lock(mutex_);
    while (!done_) {
      if (patience.is_cancelled()) return cancelled_status();
      if (Clock::now() >= patience.until) return io_error(fmt::format("{}: its name was not resolved in time", host));
      changed_.wait_for(lock, kTick);
    }
    if (error_ != 0) return io_error(fmt::format("{}: {}", host, ::gai_strerror(error_)));
    if (found_.empty()) return io_error(fmt::format("{}: has no address", host));
    return found_;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  int error_ = 0;
  std::vector<Endpoint> found_;
};

/// The socket with what is common to plain and TLS connections: one asynchronous operation at a time, driven to its
/// end.
class Wire {
 public:
  explicit Wire(std::string peer) : peer_(std::move(peer)), stream_(context_) {}

  beast::tcp_stream& stream() { return stream_; }
  const std::string& peer() const { return peer_; }

  /// `start` gets the handler to give to one asynchronous operation. Ends with that operation, or closes the socket
  /// when patience does and waits for the operation to notice. `end` keeps what the operation says.
  template <typename Start>
  Status run(const Patience& patience, error_code& end, Start start) {
    // Here, too: where data comes fast, no operation lasts until the first tick.
    Status interruption = interruption_of(patience);
    if (!interruption.ok()) return interruption;
    bool done = false;
    start([&](error_code error, auto&&... /*result*/) {
      end = error;
      done = true;
    });
    while (!done) {  // NOLINT(bugprone-infinite-loop): the handler, which run_one_for() calls, sets it
      context_.restart();
      context_.run_one_for(kTick);
      if (done || !interruption.ok()) continue;
      interruption = interruption_of(patience);
      if (!interruption.ok()) stream_.close();
    }
    return interruption;
  }

  Status connect(const std::vector<Endpoint>& endpoints, const Patience& patience) {
    Status last;
    for (std::size_t i = 0; i < endpoints.size(); ++i) {
      const auto left = patience.until - Clock::now();  // below zero when an attempt outlasted its share
      const auto attempts = static_cast<std::int64_t>(endpoints.size() - i);
      const auto share = std::chrono::duration_cast<std::chrono::milliseconds>(left / attempts);
      error_code error;
      stream_.close();  // of the attempt before
      last = run(patience.at_most(share), error,
                 [&](auto handler) { stream_.async_connect(endpoints[i], std::move(handler)); });
      if (last.code() == StatusCode::kCancelled) return last;
      if (last.ok() && error) last = io_error(fmt::format("{}: {}", peer_, error.message()));
      if (last.ok()) {
        error_code ignored;
        std::ignore = stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
        return {};
      }
    }
    return last;
  }

  /// The failure that an error of a read or write stands for.
  Status failure(const error_code& error) const {
    if (error == http::error::end_of_stream) {
      return io_error(fmt::format("{}: closed the connection without an answer", peer_));
    }
    if (error == http::error::partial_message || error == asio::ssl::error::stream_truncated ||
        error == asio::error::eof || error == asio::error::connection_reset || error == asio::error::broken_pipe) {
      return io_error(fmt::format("{}: the connection broke off", peer_));
    }
    if (error.category() == http::make_error_code(http::error::bad_version).category()) {
      return corrupt(fmt::format("{}: the answer is not proper HTTP ({})", peer_, error.message()));
    }
    return io_error(fmt::format("{}: {}", peer_, error.message()));
  }

 private:
  Status interruption_of(const Patience& patience) const {
    if (patience.is_cancelled()) return cancelled_status();
    if (Clock::now() >= patience.until) return io_error(fmt::format("{}: no answer in time", peer_));
    return {};
  }

  const std::string peer_;
  asio::io_context context_;
  beast::tcp_stream stream_;
};

void identify_to_proxy(const ConnectionOptions& options, http::fields& fields) {
  if (options.proxy.credentials.empty()) return;
  fields.set(http::field::proxy_authorization, "Basic " + base64(options.proxy.credentials));
}

/// Has the proxy connect to the server; what follows on the wire is between the two ends.
Status open_tunnel(Wire& wire, const Url& url, const ConnectionOptions& options, const Patience& patience) {
  const std::string target =
      fmt::format("{}:{}", url.host.find(':') == std::string::npos ? url.host : "[" + url.host + "]", url.port);
  http::request<http::empty_body> request(http::verb::connect, target, 11);
  request.set(http::field::host, target);
  request.set(http::field::user_agent, options.user_agent);
  identify_to_proxy(options, request);
  error_code error;
  LANNER_RETURN_IF_ERROR(
      wire.run(patience, error, [&](auto handler) { http::async_write(wire.stream(), request, std::move(handler)); }));
  if (error) return wire.failure(error);
  http::response_parser<http::empty_body> answer;
  answer.skip(true);  // whatever it announces, a CONNECT has no body
  answer.header_limit(kProxyHeadBytes);
  beast::flat_buffer buffer(kProxyHeadBytes);
  LANNER_RETURN_IF_ERROR(wire.run(patience, error, [&](auto handler) {
    http::async_read_header(wire.stream(), buffer, answer, std::move(handler));
  }));
  if (error) return wire.failure(error);
  if (answer.get().result_int() / 100 != 2) {
    return corrupt(fmt::format("the proxy {}:{} refuses to connect to {}: status {}", options.proxy.host,
                               options.proxy.port, target, answer.get().result_int()));
  }
  return {};
}

HttpHead to_head(const http::response_header<>& header) {
  HttpHead head;
  head.status = static_cast<int>(header.result_int());
  for (const auto& field : header) {
    std::string name(field.name_string());
    std::ranges::transform(name, name.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    head.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  return head;
}

/// HTTP over a Stream, which is the wire's own or TLS on top of it.
template <typename Stream>
class HttpConnection final : public Connection {
 public:
  HttpConnection(std::unique_ptr<Wire> wire, std::unique_ptr<Stream> layer, ConnectionOptions options)
      : wire_(std::move(wire)), layer_(std::move(layer)), options_(std::move(options)), chunk_(kReadBytes) {}

  Result<HttpHead> send(const HttpRequest& request, const Url& url, std::uint32_t max_header_bytes,
                        const Patience& patience) override {
    complete_ = false;
    http::request<http::string_body> message;
    message.version(11);
    message.method_string(request.method);
    message.target(absolute_targets() ? url.text() : url.target);
    message.set(http::field::host, url.authority());
    for (const auto& [name, value] : request.headers) message.set(name, value);
    if (absolute_targets()) identify_to_proxy(options_, message);
    if (!request.body.empty() || request.method == "POST" || request.method == "PUT") {
      message.body() = request.body;
      message.prepare_payload();
    }
    error_code error;
    LANNER_RETURN_IF_ERROR(
        wire_->run(patience, error, [&](auto handler) { http::async_write(stream(), message, std::move(handler)); }));
    if (error) return wire_->failure(error);
    for (int heads = 0; heads < kMaxInformationalHeads; ++heads) {
      parser_.emplace();
      parser_->header_limit(max_header_bytes);
      parser_->body_limit(boost::none);  // the sink knows how much it wants
      if (request.method == "HEAD") parser_->skip(true);
      buffer_.max_size(max_header_bytes + kReadBytes);
      LANNER_RETURN_IF_ERROR(wire_->run(patience, error, [&](auto handler) {
        http::async_read_header(stream(), buffer_, *parser_, std::move(handler));
      }));
      if (error) return wire_->failure(error);
      if (parser_->get().result_int() / 100 != 1) return finish_head();
    }
    return corrupt(fmt::format("{}: too many interim answers", wire_->peer()));
  }

  Status read_body(const BodyPace& pace, const Patience& patience,
                   const std::function<Status(std::string_view)>& write) override {
    auto window_begin = Clock::now();
    std::int64_t window_bytes = 0;
    const auto window = 3 * pace.idle_timeout;
    const std::int64_t wanted = pace.minimum_bytes_per_second * window.count() / 1000;
    while (!parser_->is_done()) {
      auto& body = parser_->get().body();
      body.data = chunk_.data();
      body.size = chunk_.size();
      body.more = true;
      error_code error;
      LANNER_RETURN_IF_ERROR(wire_->run(patience.at_most(pace.idle_timeout), error, [&](auto handler) {
        http::async_read_some(stream(), buffer_, *parser_, std::move(handler));
      }));
      if (error && error != http::error::need_buffer) return wire_->failure(error);
      const std::size_t count = chunk_.size() - parser_->get().body().size;
      if (count > 0) LANNER_RETURN_IF_ERROR(write(std::string_view(chunk_.data(), count)));
      window_bytes += static_cast<std::int64_t>(count);
      const auto now = Clock::now();
      if (now - window_begin < window) continue;
      if (window_bytes < wanted) return io_error(fmt::format("{}: the answer comes too slowly", wire_->peer()));
      window_begin = now;
      window_bytes = 0;
    }
    complete_ = true;
    return {};
  }

  bool reusable() const override { return complete_ && keep_alive_; }

  bool stale() override {
    char byte = 0;
    const auto got = ::recv(wire_->stream().socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
  }

 private:
  static constexpr bool kTls = !std::is_same_v<Stream, beast::tcp_stream>;

  Stream& stream() {
    if constexpr (kTls) {
      return *layer_;
    } else {
      return wire_->stream();
    }
  }
  bool absolute_targets() const { return !kTls && !options_.proxy.host.empty(); }

  HttpHead finish_head() {
    keep_alive_ = parser_->keep_alive();
    if (parser_->is_done()) complete_ = true;
    return to_head(parser_->get().base());
  }

  std::unique_ptr<Wire> wire_;
  std::unique_ptr<Stream> layer_;  // TLS; none on a plain connection
  ConnectionOptions options_;
  beast::flat_buffer buffer_;
  std::optional<http::response_parser<http::buffer_body>> parser_;
  std::vector<char> chunk_;
  bool keep_alive_ = false;
  bool complete_ = false;
};

using TlsStream = asio::ssl::stream<beast::tcp_stream&>;

Status certificate_failure(const Url& url, long code) {
  return corrupt(fmt::format("{}: its certificate is not accepted: {} (SSL_CERT_FILE may name other authorities)",
                             url.host, X509_verify_cert_error_string(code)));
}

/// The handshake, with the server's name sent and checked.
Status start_tls(Wire& wire, TlsStream& stream, const Url& url, const Patience& patience) {
  SSL* ssl = stream.native_handle();
  error_code error;
  asio::ip::make_address(url.host, error);
  const bool named = static_cast<bool>(error);
  bool set = false;
  if (named) {
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    std::string name = url.host;
    // What SSL_set_tlsext_host_name() is, without its cast.
    set = SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data()) == 1 &&
          SSL_set1_host(ssl, name.c_str()) == 1;
  } else {
    set = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), url.host.c_str()) == 1;
  }
  if (!set) return internal_error(fmt::format("{}: TLS cannot check for this name", url.host));
  LANNER_RETURN_IF_ERROR(wire.run(patience, error, [&](auto handler) {
    stream.async_handshake(asio::ssl::stream_base::client, std::move(handler));
  }));
  if (!error) return {};
  const long verified = SSL_get_verify_result(ssl);
  if (verified != X509_V_OK) return certificate_failure(url, verified);
  const bool broken = error == asio::error::eof || error == asio::error::connection_reset ||
                      error == asio::ssl::error::stream_truncated;
  if (broken) return io_error(fmt::format("{}: the connection broke off in the TLS handshake", url.host));
  return corrupt(fmt::format("{}: TLS failed: {}", url.host, error.message()));
}

}  // namespace

Result<std::unique_ptr<Connection>> open_connection(const Url& url, const ConnectionOptions& options, TlsSettings* tls,
                                                    const Patience& patience) {
  const bool proxied = !options.proxy.host.empty();
  const std::string& host = proxied ? options.proxy.host : url.host;
  LANNER_ASSIGN_OR_RETURN(const std::vector<Endpoint> endpoints,
                          Lookup::run(host, proxied ? options.proxy.port : url.port, patience));
  auto wire = std::make_unique<Wire>(proxied ? "proxy " + host : url.authority());
  LANNER_RETURN_IF_ERROR(wire->connect(endpoints, patience));
  if (!url.https) {
    return std::unique_ptr<Connection>(
        std::make_unique<HttpConnection<beast::tcp_stream>>(std::move(wire), nullptr, options));
  }
  if (tls->error()) return internal_error(fmt::format("TLS cannot be set up: {}", tls->error().message()));
  if (proxied) LANNER_RETURN_IF_ERROR(open_tunnel(*wire, url, options, patience));
  auto layer = std::make_unique<TlsStream>(wire->stream(), tls->context());
  LANNER_RETURN_IF_ERROR(start_tls(*wire, *layer, url, patience));
  return std::unique_ptr<Connection>(
      std::make_unique<HttpConnection<TlsStream>>(std::move(wire), std::move(layer), options));
}

}  // namespace lanner::net
