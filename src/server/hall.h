#pragma once
// What the connections of a server share, and the plain parts of one: limits, the framing of a request. For
// client_connection.h alone, as are the libraries that are included here.

// <utility> stands before Asio: with g++ 12, Asio 1.81 uses std::exchange without including it.
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <ctime>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/ascii.h"
#include "server/http_server.h"

namespace lanner::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Tcp = asio::ip::tcp;
using TlsStream = beast::ssl_stream<beast::tcp_stream>;

inline constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);
inline constexpr std::size_t kReadBytes = 4096;       // at once, while a connection waits for its next request
inline constexpr std::size_t kLingerBytes = 1 << 20;  // of a refused body that is read and thrown away
inline constexpr std::chrono::milliseconds kLingerTime(2'000);  // for that, and for a farewell of TLS
inline constexpr std::chrono::milliseconds kHandshakeTime(10'000);
inline constexpr std::size_t kWriteBytes = 64 << 10;  // that a reader must take some of before write_timeout

class Connection {
 public:
  virtual ~Connection() = default;
  virtual void drain() = 0;
  virtual void close() = 0;
};

/// What connections share. All but the pools belongs to the thread of input and output.
struct Hall {
  Hall(HttpServerOptions the_options, HttpHandler& the_handler)
      : options(std::move(the_options)),
        handler(the_handler),
        workers(static_cast<std::size_t>(options.workers)),
        waiters(static_cast<std::size_t>(options.waiters)) {}

  const HttpServerOptions options;
  HttpHandler& handler;
  asio::io_context io{1};
  asio::thread_pool workers;
  asio::thread_pool waiters;
  std::unordered_set<Connection*> connections;
  std::atomic<int> count = 0;  // of them, for other threads
  std::unordered_map<std::string, int> per_address;
  std::uint64_t bodies_bytes = 0;
  bool draining = false;

  /// "Thu, 26 Nov 2026 17:00:00 GMT", written once a second.
  const std::string& date() {
    const std::time_t now = std::time(nullptr);
    if (now == date_second_) return date_;
    date_second_ = now;
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    std::array<char, 40> text{};
    date_.assign(text.data(), std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts));
    return date_;
  }

 private:
  std::time_t date_second_ = 0;
  std::string date_;
};

/// A request's part of max_bodies_bytes.
class BodyShare {
 public:
  explicit BodyShare(Hall& hall) : hall_(hall) {}
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;
  ~BodyShare() { hall_.bodies_bytes -= bytes_; }

  bool grow_to(std::uint64_t bytes) {
    const std::uint64_t more = bytes > bytes_ ? bytes - bytes_ : 0;
    if (hall_.bodies_bytes + more > hall_.options.max_bodies_bytes) return false;
    hall_.bodies_bytes += more;
    bytes_ += more;
    return true;
  }

 private:
  Hall& hall_;
  std::uint64_t bytes_ = 0;
};

struct Problem {
  int status = 0;  // 0: nothing to answer, the client has gone or said nothing
  std::string message;
};

inline Problem problem_of(const error_code& error, const HttpServerOptions& options) {
  if (error == http::error::end_of_stream || error == asio::error::eof || error == asio::error::connection_reset ||
      error == asio::error::operation_aborted || error == http::error::partial_message ||
      error == beast::error::timeout) {  // which has closed the socket
    return {};
  }
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return {431, fmt::format("the header of the request is longer than {} bytes", options.max_header_bytes)};
  }
  if (error == http::error::body_limit) {
    return {413, fmt::format("the body of the request is longer than {} bytes", options.max_body_bytes)};
  }
  if (error.category() == http::make_error_code(http::error::bad_version).category()) {
    return {400, "the request is not proper HTTP"};
  }
  return {};
}

/// What two readers of one header might see the end of the request at different places by: the server and a proxy in
/// front of it must not.
template <typename Parser>
Problem framing_problem(const Parser& parser) {
  std::size_t hosts = 0;
  std::size_t encodings = 0;
  bool only_chunked = parser.get().version() >= 11 && parser.chunked();
  for (const auto& field : parser.get().base()) {
    if (field.name() == http::field::host) ++hosts;
    if (field.name() != http::field::transfer_encoding) continue;
    ++encodings;
    only_chunked = only_chunked && lower_case(std::string_view(field.value())) == "chunked";
  }
  if (hosts > 1) return {400, "the request has more than one Host"};
  if (encodings > 1 || (encodings == 1 && !only_chunked)) {
    return {501, "the only Transfer-Encoding that is taken is chunked, once, and not in HTTP/1.0"};
  }
  return {};
}

template <typename Fields>
HttpRequest to_request(const http::header<true, Fields>& header, const std::string& peer) {
  HttpRequest request;
  request.method = std::string(header.method_string());
  const std::string target(header.target());
  const std::size_t question = target.find('?');
  request.path = target.substr(0, question);
  if (question != std::string::npos) request.query = target.substr(question + 1);
  for (const auto& field : header) {
    request.headers.emplace_back(lower_case(std::string_view(field.name_string())), std::string(field.value()));
  }
  request.peer = peer;
  return request;
}

/// Cancels an answer that is not taken to its end, whichever way the coroutine ends that takes it.
class LateGuard {
 public:
  explicit LateGuard(LateAnswer& late) : late_(&late) {}
  LateGuard(const LateGuard&) = delete;
  LateGuard& operator=(const LateGuard&) = delete;
  ~LateGuard() {
    if (late_ == nullptr) return;
    try {
      late_->cancel();
    } catch (const std::exception&) {
      done();  // there is no memory to cancel what is under way; at the least nobody is woken any more
    }
  }
  void done() { late_ = nullptr; }

 private:
  LateAnswer* late_;
};

}  // namespace lanner::server
