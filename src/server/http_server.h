#pragma once
// HTTP/1.1 over TCP and TLS: sockets, parsing, limits, timeouts. What is answered is an HttpHandler's affair.
//
//   LANNER_ASSIGN_OR_RETURN(auto server, HttpServer::start({.host = "127.0.0.1", .port = 0}, handler));
//   … server->port() …
//   server->stop();
//
// One thread does all input and output, each connection being a coroutine on it; a few others run handle(). What a
// client can make the server hold is bounded: connections, header and body of a request, all bodies together, and what
// a stream has ready that its reader does not take. Requests on one connection are answered one after the other.
//
// A client that goes away while its answer is being made is seen at once, and the answer cancelled.
//
// Threads: start() and stop() from one thread; the handler is called from the server's own.

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "lanner/status.h"
#include "server/http.h"

namespace lanner::server {

struct HttpServerOptions {
  std::string host = "127.0.0.1";  // a name or an address to listen on
  std::uint16_t port = 0;          // 0: any that is free
  /// PEM files; both or neither.
  std::string certificate_file;
  std::string key_file;
  int workers = 2;  // threads that run what takes a while
  int waiters = 4;  // and what waits

  std::uint32_t max_header_bytes = 16 << 10;
  std::uint64_t max_body_bytes = 32ULL << 20;
  std::uint64_t max_bodies_bytes = 512ULL << 20;  // of all requests together
  int max_connections = 10'000;
  int max_connections_per_address = 1'000;  // of one client address, this machine's own excepted
  std::chrono::milliseconds header_timeout{10'000};
  std::chrono::milliseconds body_timeout{60'000};
  std::chrono::milliseconds write_timeout{30'000};  // without a reader for a piece of an answer
  std::chrono::milliseconds idle_timeout{120'000};  // between two requests of one connection
};

/// How an exchange ended, for a log.
struct HttpOutcome {
  int status = 0;
  std::uint64_t body_bytes = 0;  // of the answer, as far as it was sent
  std::chrono::microseconds time{0};
  bool client_left = false;
};

/// How long handle() takes.
enum class Pace : std::uint8_t {
  kAtOnce,  // it is called on the thread of input and output
  kSoon,
  kWaits,  // for others; so that there are threads of their own for it
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  /// Called before the body is read, which `head` therefore lacks: an answer, if the request is refused. Gives the
  /// request its id.
  virtual std::optional<HttpReply> screen(HttpRequest& head) = 0;
  /// Called when all has been read: an answer, if there is no room for what is asked. It takes no time: the
  /// thread of input and output waits for it.
  virtual std::optional<HttpReply> turn_away(const HttpRequest& /*request*/) { return std::nullopt; }
  virtual Pace pace(const HttpRequest& request) const = 0;
  virtual HttpReply handle(const HttpRequest& request) = 0;
  /// The answer to what is no proper request, such as a body that is too long: `status` is 4xx or 5xx.
  virtual HttpReply refuse(int status, const std::string& message) = 0;
  /// Such an answer in the form that the request's route gives its own; what is known of `request` may be nothing.
  virtual HttpReply in_form_of(const HttpRequest& /*request*/, HttpReply refusal) { return refusal; }
  /// Added to every answer to `request`.
  virtual Headers common_headers(const HttpRequest& request) const = 0;
  /// Once for every exchange, after its last byte.
  virtual void finished(const HttpRequest& request, const HttpOutcome& outcome) = 0;
};

class HttpServer {
 public:
  /// kIo where nothing can listen on the address, kInvalidArgument for files of TLS that cannot be used.
  static Result<std::unique_ptr<HttpServer>> start(HttpServerOptions options, HttpHandler& handler);
  /// As stop().
  virtual ~HttpServer() = default;

  virtual std::uint16_t port() const = 0;
  /// How many clients are connected now; from any thread.
  virtual int connections() const = 0;
  /// From now on each answer ends its connection, and connections without a request are closed. New ones are taken.
  virtual void drain() = 0;
  /// Closes all and joins the threads.
  virtual void stop() = 0;
};

}  // namespace lanner::server
