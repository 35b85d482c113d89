#pragma once
// One client of the server: the coroutine that reads its requests and writes the answers. For http_server.cpp alone:
// here is all of Boost.Beast that the server uses, and it compiles slowly.

#include <array>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "server/hall.h"

namespace lanner::server {

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
    left_->store(true);
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
                              if (self->gone_) self->left_->store(true);
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
      if (error == http::error::body_limit) request = to_request(parser.get().base(), peer_);  // its header is whole
    } else {
      request = to_request(parser.get().base(), peer_);
      request.client_left = left_;
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
    if (!reply) reply = refuse(request, problem.status, problem.message);

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
    if (pace == Pace::kWaits) watch();
    asio::thread_pool& pool = pace == Pace::kSoon ? hall_.workers : hall_.waiters;
    HttpReply reply = co_await asio::co_spawn(pool, on_worker(request), asio::use_awaitable);
    co_return reply;
  }
  asio::awaitable<HttpReply> on_worker(const HttpRequest& request) { co_return guarded(request); }
  asio::awaitable<HttpReply> whole_of(const HttpRequest& request, LateAnswer& late) {
    co_return guarded(request, [&late] { return late.reply(); });
  }

  HttpReply refuse(const HttpRequest& request, int status, const std::string& message) {
    return hall_.handler.in_form_of(request, hall_.handler.refuse(status, message));
  }

  HttpReply guarded(const HttpRequest& request) {
    return guarded(request, [&] { return hall_.handler.handle(request); });
  }
  /// Nothing that one request does ends the others.
  template <typename Make>
  HttpReply guarded(const HttpRequest& request, Make make)
    requires std::is_invocable_v<Make>
  {
    try {
      return make();
    } catch (const std::bad_alloc&) {
      return refuse(request, 503, "the server lacks memory for this request");
    } catch (const std::exception&) {
      return refuse(request, 500, "the server failed on this request");
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
      const bool known = co_await wait_for_head(*late, reply);
      if (!known) co_return false;
      const Framing framing{version, keep};
      sent = co_await send_stream(request, reply, *late, guard, framing);
      co_return sent;
    }
    const bool made = co_await wait_for(*late);
    if (!made) co_return false;
    guard.done();
    HttpReply whole;
    if (late->reply_takes_long()) {
      whole = co_await asio::co_spawn(hall_.workers, whole_of(request, *late), asio::use_awaitable);
    } else {
      whole = late->reply();
    }
    sent = co_await send_whole(request, whole, version, keep && !hall_.draining);
    co_return sent;
  }

  /// False when the client left first.
  asio::awaitable<bool> wait_for_head(LateAnswer& late, HttpReply& head) {
    bool reached = true;
    while (reached) {
      woken_ = false;
      if (late.know_head(head)) co_return true;
      reached = co_await wait_for_wake();
    }
    co_return false;
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
      if (piece.broken) kept_ = false;
      if (!piece.bytes.empty()) {
        reached = co_await send_piece(piece.bytes, framing.chunked());
      } else if (!done) {
        reached = co_await wait_for_wake();
      }
      if (piece.broken) co_return false;
    }
    if (!reached) co_return false;
    if (framing.chunked()) {
      const auto [last_error, last_bytes] = co_await asio::async_write(stream_, http::make_chunk_last(), kNoThrow);
      reached = !last_error;
    }
    co_return reached&& framing.chunked();
  }

  asio::awaitable<bool> send_piece(const std::string& bytes, bool chunked) {
    error_code failure;
    for (std::string_view rest = bytes; !rest.empty() && !failure;) {
      const std::string_view part = rest.substr(0, kWriteBytes);
      rest.remove_prefix(part.size());
      socket().expires_after(hall_.options.write_timeout);
      const asio::const_buffer buffer(part.data(), part.size());
      if (chunked) {
        const auto [error, count] = co_await asio::async_write(stream_, http::make_chunk(buffer), kNoThrow);
        failure = error;
      } else {
        const auto [error, count] = co_await asio::async_write(stream_, buffer, kNoThrow);
        failure = error;
      }
      if (!failure) outcome_.body_bytes += part.size();
    }
    co_return !failure;
  }

  asio::awaitable<bool> send_whole(const HttpRequest& request, HttpReply& reply, unsigned version, bool keep) {
    kept_ = keep;
    outcome_.status = reply.status;
    const std::size_t size = reply.body.size();
    const bool bodiless = request.method == "HEAD" || reply.status == 204;
    socket().expires_after(hall_.options.write_timeout);
    error_code failure;
    if (bodiless || size > kWriteBytes) {
      http::response<http::empty_body> response{static_cast<http::status>(reply.status), version};
      fill_head(response, request, reply);
      if (reply.status != 204) response.content_length(size);
      response.keep_alive(keep);
      http::response_serializer<http::empty_body> serializer(response);
      const auto [error, bytes] = co_await http::async_write_header(stream_, serializer, kNoThrow);
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
      co_return !failure;
    }
    bool sent = !failure;
    // Piece by piece, so that what counts is that the client takes something, however long it takes for all.
    if (sent && !bodiless) sent = co_await send_piece(reply.body, false);
    co_return sent;
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
  const std::shared_ptr<std::atomic<bool>> left_ = std::make_shared<std::atomic<bool>>(false);  // gone_, for others
  bool kept_ = false;  // the last answer said that the connection goes on
};

}  // namespace lanner::server
