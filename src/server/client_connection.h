#pragma once
// One client of the server: the coroutine that reads its requests and writes the answers. For http_server.cpp alone:
// here is all of Boost.Beast that the server uses, and it compiles slowly.

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
inline constexpr std::size_t kWriteBytesPerSecond = 64 << 10;  // what a reader of a long answer must manage

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

inline std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
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

/// One client. `Stream` is a beast::tcp_stream or a TlsStream around one.
///
/// g++ 12 miscompiles some expressions around co_await: each stands in a statement of its own.
///
/// Invariants: 1. reading_ is true while a read is under way that watch() has begun; only then does anything else than
/// the coroutine touch buffer_. 2. Whoever changes reading_, gone_, woken_ or closing_ calls signal_.cancel().
template <typename Stream>
class ClientConnection final : public Connection, public std::enable_shared_from_this<ClientConnection<Stream>> {
 public:
  ClientConnection(Hall& hall, Stream stream, std::string peer)
      : hall_(hall), stream_(std::move(stream)), peer_(std::move(peer)), signal_(hall.io) {
    hall_.connections.insert(this);
    ++hall_.count;
    ++hall_.per_address[peer_];
  }
  ~ClientConnection() override {
    hall_.connections.erase(this);
    --hall_.count;
    const auto found = hall_.per_address.find(peer_);
    if (--found->second == 0) hall_.per_address.erase(found);
  }

  void drain() override {
    if (idle_) signal_.cancel();
  }
  void close() override {
    closing_ = true;
    signal_.cancel();
    socket().close();
  }

  /// The connection's life; `self` keeps it that long.
  static asio::awaitable<void> run(std::shared_ptr<ClientConnection> self) {
    try {
      bool go_on = true;
      if constexpr (kTls) {
        self->socket().expires_after(kHandshakeTime);
        const auto [error] = co_await self->stream_.async_handshake(asio::ssl::stream_base::server, kNoThrow);
        go_on = !error;
      }
      while (go_on) {
        go_on = co_await self->wait_for_request();
        if (go_on) go_on = co_await self->exchange();
      }
    } catch (const std::exception&) {
      self->gone_ = true;  // for lack of memory, mostly: this connection ends, and the others go on
    }
    if constexpr (kTls) {
      if (!self->reading_ && !self->gone_) {
        self->socket().expires_after(kLingerTime);
        [[maybe_unused]] const auto [error] = co_await self->stream_.async_shutdown(kNoThrow);
      }
    }
    self->socket().close();
  }

 private:
  static constexpr bool kTls = !std::is_same_v<Stream, beast::tcp_stream>;
  using Parser = http::request_parser<http::string_body>;

  beast::tcp_stream& socket() { return beast::get_lowest_layer(stream_); }

  /// Notices what the client sends, or that it leaves, while an answer is made or nothing happens.
  void watch() {
    if (reading_ || gone_ || buffer_.size() > 0) return;
    reading_ = true;
    socket().expires_never();
    stream_.async_read_some(buffer_.prepare(kReadBytes),
                            [self = this->shared_from_this()](const error_code& error, std::size_t bytes) {
                              self->reading_ = false;
                              self->buffer_.commit(bytes);
                              self->gone_ = self->gone_ || error;
                              self->signal_.cancel();
                            });
  }

  /// Whether bytes have come that have not been read yet.
  bool has_more() {
    error_code error;
    const std::size_t bytes = socket().socket().available(error);
    return !error && bytes > 0;
  }

  /// False when the connection is to end instead. While the server drains, nothing is waited for that has not come; but
  /// who has just connected is answered once.
  asio::awaitable<bool> wait_for_request() {
    if (buffer_.size() > 0) co_return !closing_;
    const bool fresh = !served_ && hall_.draining;
    idle_ = true;
    watch();
    signal_.expires_after(hall_.options.idle_timeout);
    bool expired = false;
    bool given_up = false;
    while (reading_ && !closing_ && !expired) {
      if (hall_.draining && !fresh && !given_up && !has_more()) {
        given_up = true;
        socket().cancel();  // the read ends, with what it has got before
      }
      const auto [error] = co_await signal_.async_wait(kNoThrow);
      expired = !error;
    }
    idle_ = false;
    co_return buffer_.size() > 0 && !closing_;
  }

  /// One request and its answer; whether the connection goes on.
  asio::awaitable<bool> exchange() {
    Parser parser;
    parser.header_limit(hall_.options.max_header_bytes);
    parser.body_limit(hall_.options.max_body_bytes);
    BodyShare share(hall_);
    outcome_ = {};
    HttpRequest request;
    request.peer = peer_;
    const Clock::time_point begin = Clock::now();
    Problem problem;
    bool framed = false;  // where the request ends is known
    std::optional<HttpReply> reply;

    socket().expires_after(hall_.options.header_timeout);
    const auto [error, bytes] = co_await http::async_read_header(stream_, buffer_, parser, kNoThrow);
    if (error) {
      problem = problem_of(error, hall_.options);
      if (problem.status == 0) co_return false;
    } else {
      request = to_request(parser.get().base(), peer_);
      problem = framing_problem(parser);
      framed = problem.status == 0;
      if (framed) reply = hall_.handler.screen(request);
      if (framed && !reply) problem = co_await read_body(parser, share);
    }
    const bool complete = framed && parser.is_done();
    if (!reply && problem.status == 0) {
      if (!complete) co_return false;
      request.body = std::move(parser.get().body());
      reply = hall_.handler.turn_away(request);
      if (!reply) reply = co_await answer(request);
    }
    if (!reply) reply = hall_.handler.refuse(problem.status, problem.message);

    const bool keep = complete && parser.get().keep_alive();
    const unsigned version = error ? 11 : parser.get().version();
    const bool sent = co_await send(request, *reply, version, keep);
    outcome_.time = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin);
    outcome_.client_left = !sent;
    hall_.handler.finished(request, outcome_);
    served_ = true;
    const bool unread = !kept_ && !reading_ && (buffer_.size() > 0 || has_more());
    if (sent && (!complete || unread)) co_await linger();
    // What the client was told counts: it may have sent its next request already.
    co_return sent&& kept_ && !closing_;
  }

  asio::awaitable<Problem> read_body(Parser& parser, BodyShare& share) {
    if (parser.is_done()) co_return Problem{};
    if (parser.get()[http::field::expect] == "100-continue") {
      constexpr std::string_view kGoOn = "HTTP/1.1 100 Continue\r\n\r\n";
      socket().expires_after(hall_.options.write_timeout);
      const auto [error, bytes] = co_await asio::async_write(stream_, asio::buffer(kGoOn), kNoThrow);
      if (error) co_return Problem{};
    }
    socket().expires_after(hall_.options.body_timeout);
    while (!parser.is_done()) {
      const auto [error, bytes] = co_await http::async_read_some(stream_, buffer_, parser, kNoThrow);
      if (error) co_return problem_of(error, hall_.options);
      if (!share.grow_to(parser.get().body().size())) {
        co_return Problem{503, "the server is reading too many requests at once; try again later"};
      }
    }
    co_return Problem{};
  }

  asio::awaitable<HttpReply> answer(const HttpRequest& request) {
    const Pace pace = hall_.handler.pace(request);
    if (pace == Pace::kAtOnce) co_return guarded(request);
    asio::thread_pool& pool = pace == Pace::kSoon ? hall_.workers : hall_.waiters;
    HttpReply reply = co_await asio::co_spawn(pool, on_worker(request), asio::use_awaitable);
    co_return reply;
  }
  asio::awaitable<HttpReply> on_worker(const HttpRequest& request) { co_return guarded(request); }

  /// Nothing that one request does ends the others.
  HttpReply guarded(const HttpRequest& request) {
    try {
      return hall_.handler.handle(request);
    } catch (const std::bad_alloc&) {
      return hall_.handler.refuse(503, "the server lacks memory for this request");
    } catch (const std::exception&) {
      return hall_.handler.refuse(500, "the server failed on this request");
    }
  }

  struct Framing {
    unsigned version = 11;
    bool keep = false;
    bool chunked() const { return version >= 11; }
  };

  /// False when the answer did not reach the client.
  asio::awaitable<bool> send(const HttpRequest& request, HttpReply& reply, unsigned version, bool keep) {
    keep = keep && !hall_.draining;
    std::shared_ptr<LateAnswer> late = std::move(reply.late);
    if (late == nullptr) {
      const bool sent = co_await send_whole(request, reply, version, keep);
      co_return sent;
    }
    LateGuard guard(*late);
    late->start([weak = this->weak_from_this(), &io = hall_.io] {
      asio::post(io, [weak] {
        const auto self = weak.lock();
        if (self == nullptr) return;
        self->woken_ = true;
        self->signal_.cancel();
      });
    });
    bool sent = false;
    if (late->streams()) {
      const Framing framing{version, keep};
      sent = co_await send_stream(request, reply, *late, guard, framing);
      co_return sent;
    }
    const bool made = co_await wait_for(*late);
    if (!made) co_return false;
    guard.done();
    HttpReply whole = late->reply();
    sent = co_await send_whole(request, whole, version, keep && !hall_.draining);
    co_return sent;
  }

  /// False when the client left first.
  asio::awaitable<bool> wait_for(LateAnswer& late) {
    bool reached = true;
    while (reached) {
      woken_ = false;
      const LateAnswer::Piece piece = late.take();
      if (piece.done) co_return true;
      reached = co_await wait_for_wake();
    }
    co_return false;
  }

  asio::awaitable<bool> wait_for_wake() {
    watch();
    signal_.expires_at(Clock::time_point::max());
    while (!woken_ && !gone_ && !closing_) {
      [[maybe_unused]] const auto [cancelled] = co_await signal_.async_wait(kNoThrow);
    }
    co_return !gone_ && !closing_;
  }

  asio::awaitable<bool> send_stream(const HttpRequest& request, const HttpReply& reply, LateAnswer& late,
                                    LateGuard& guard, Framing framing) {
    http::response<http::empty_body> head{static_cast<http::status>(reply.status), framing.version};
    fill_head(head, request, reply);
    head.set(http::field::cache_control, "no-cache");
    head.chunked(framing.chunked());
    head.keep_alive(framing.keep && framing.chunked());
    kept_ = head.keep_alive();
    outcome_.status = reply.status;
    http::response_serializer<http::empty_body> serializer(head);
    socket().expires_after(hall_.options.write_timeout);
    const auto [error, bytes] = co_await http::async_write_header(stream_, serializer, kNoThrow);
    bool reached = !error;
    bool done = false;
    while (reached && !done) {
      woken_ = false;
      LateAnswer::Piece piece = late.take();
      done = piece.done;
      if (done) guard.done();
      if (!piece.bytes.empty()) {
        reached = co_await send_piece(piece.bytes, framing.chunked());
      } else if (!done) {
        reached = co_await wait_for_wake();
      }
    }
    if (!reached) co_return false;
    if (framing.chunked()) {
      const auto [last_error, last_bytes] = co_await asio::async_write(stream_, http::make_chunk_last(), kNoThrow);
      reached = !last_error;
    }
    co_return reached&& framing.chunked();
  }

  asio::awaitable<bool> send_piece(const std::string& bytes, bool chunked) {
    socket().expires_after(hall_.options.write_timeout);
    error_code failure;
    if (chunked) {
      const auto [error, count] = co_await asio::async_write(stream_, http::make_chunk(asio::buffer(bytes)), kNoThrow);
      failure = error;
    } else {
      const auto [error, count] = co_await asio::async_write(stream_, asio::buffer(bytes), kNoThrow);
      failure = error;
    }
    if (!failure) outcome_.body_bytes += bytes.size();
    co_return !failure;
  }

  asio::awaitable<bool> send_whole(const HttpRequest& request, HttpReply& reply, unsigned version, bool keep) {
    kept_ = keep;
    outcome_.status = reply.status;
    const std::size_t size = reply.body.size();
    socket().expires_after(hall_.options.write_timeout + std::chrono::seconds(size / kWriteBytesPerSecond));
    error_code failure;
    if (request.method == "HEAD" || reply.status == 204) {
      http::response<http::empty_body> response{static_cast<http::status>(reply.status), version};
      fill_head(response, request, reply);
      if (reply.status != 204) response.content_length(size);
      response.keep_alive(keep);
      const auto [error, bytes] = co_await http::async_write(stream_, response, kNoThrow);
      failure = error;
    } else {
      http::response<http::string_body> response{static_cast<http::status>(reply.status), version};
      fill_head(response, request, reply);
      response.body() = std::move(reply.body);
      response.content_length(size);
      response.keep_alive(keep);
      const auto [error, bytes] = co_await http::async_write(stream_, response, kNoThrow);
      failure = error;
      outcome_.body_bytes = failure ? 0 : size;
    }
    co_return !failure;
  }

  template <typename Response>
  void fill_head(Response& response, const HttpRequest& request, const HttpReply& reply) {
    response.set(http::field::server, "lanner");
    response.set(http::field::date, hall_.date());
    if (reply.status != 204) response.set(http::field::content_type, reply.content_type);
    for (const auto& [name, value] : hall_.handler.common_headers(request)) response.set(name, value);
    for (const auto& [name, value] : reply.headers) response.set(name, value);
  }

  /// Lets a client read the answer to a request whose rest was not read: closing at once would take it away.
  asio::awaitable<void> linger() {
    error_code ignored;
    if constexpr (!kTls) {
      std::ignore = socket().socket().shutdown(Tcp::socket::shutdown_send, ignored);
    }
    socket().expires_after(kLingerTime);
    std::array<char, kReadBytes> scratch{};
    for (std::size_t total = 0; total < kLingerBytes;) {
      const auto [error, bytes] = co_await stream_.async_read_some(asio::buffer(scratch), kNoThrow);
      if (error) break;
      total += bytes;
    }
  }

  Hall& hall_;
  Stream stream_;
  const std::string peer_;
  asio::steady_timer signal_;
  beast::flat_buffer buffer_;
  HttpOutcome outcome_;
  bool reading_ = false;
  bool gone_ = false;
  bool woken_ = false;  // a late answer has more
  bool closing_ = false;
  bool idle_ = false;
  bool served_ = false;
  bool kept_ = false;  // the last answer said that the connection goes on
};

}  // namespace lanner::server
