#include "server/http_server.h"

#include <fmt/format.h>

#include <exception>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <boost/asio/detached.hpp>

#include "server/client_connection.h"

namespace lanner::server {
namespace {

constexpr std::chrono::milliseconds kAcceptPause(50);  // where the process has no descriptor left

bool is_loopback(const Tcp::endpoint& endpoint) {
  const asio::ip::address address = endpoint.address();
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).is_loopback();
  }
  return address.is_loopback();
}

class BeastServer final : public HttpServer {
 public:
  BeastServer(HttpServerOptions options, HttpHandler& handler) : hall_(std::move(options), handler) {}
  // Without memory to post into, there is no orderly end. NOLINTNEXTLINE(bugprone-exception-escape)
  ~BeastServer() override { stop_now(); }

  Status open() {
    if (!hall_.options.certificate_file.empty()) LANNER_RETURN_IF_ERROR(load_certificate());
    LANNER_RETURN_IF_ERROR(listen());
    for (Tcp::acceptor& acceptor : acceptors_) asio::co_spawn(hall_.io, accept_clients(acceptor), asio::detached);
    thread_ = std::thread([this] { hall_.io.run(); });
    return {};
  }

  std::uint16_t port() const override { return port_; }
  int connections() const override { return hall_.count; }

  void drain() override {
    asio::post(hall_.io, [this] {
      hall_.draining = true;
      for (Connection* connection : hall_.connections) connection->drain();
    });
  }

  void stop() override { stop_now(); }

 private:
  void stop_now() {
    if (!thread_.joinable()) return;
    asio::post(hall_.io, [this] {
      hall_.draining = true;
      stopping_ = true;
      error_code ignored;
      for (Tcp::acceptor& acceptor : acceptors_) std::ignore = acceptor.close(ignored);
      for (Connection* connection : hall_.connections) connection->close();
    });
    thread_.join();  // once the last coroutine has ended
    hall_.workers.join();
    hall_.waiters.join();
  }

  Status load_certificate() {
    tls_.emplace(asio::ssl::context::tls_server);
    error_code error;
    if (SSL_CTX_set_min_proto_version(tls_->native_handle(), TLS1_2_VERSION) != 1) {
      return internal_error("TLS cannot be set up");
    }
    std::ignore = tls_->use_certificate_chain_file(hall_.options.certificate_file, error);
    if (error) {
      return invalid_argument(
          fmt::format("{}: no certificate that can be used: {}", hall_.options.certificate_file, error.message()));
    }
    std::ignore = tls_->use_private_key_file(hall_.options.key_file, asio::ssl::context::pem, error);
    if (error) {
      return invalid_argument(
          fmt::format("{}: no key that goes with the certificate: {}", hall_.options.key_file, error.message()));
    }
    return {};
  }

  Status listen() {
    const std::string where = fmt::format("{}:{}", hall_.options.host, hall_.options.port);
    error_code error;
    Tcp::resolver resolver(hall_.io);
    const auto found = resolver.resolve(hall_.options.host, std::to_string(hall_.options.port),
                                        Tcp::resolver::passive | Tcp::resolver::numeric_service, error);
    if (error) return io_error(fmt::format("cannot listen on {}: {}", where, error.message()));
    port_ = hall_.options.port;
    Status failure;
    for (const auto& entry : found) {
      Tcp::endpoint endpoint = entry.endpoint();
      endpoint.port(port_);  // all on the one that the first was given
      Tcp::acceptor acceptor(hall_.io);
      std::ignore = acceptor.open(endpoint.protocol(), error);
      if (!error) std::ignore = acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
      if (!error) std::ignore = acceptor.bind(endpoint, error);
      if (!error) std::ignore = acceptor.listen(asio::socket_base::max_listen_connections, error);
      if (error) {
        failure = io_error(fmt::format("cannot listen on {}: {}", where, error.message()));
        continue;
      }
      port_ = acceptor.local_endpoint(error).port();
      acceptors_.push_back(std::move(acceptor));
    }
    return acceptors_.empty() ? failure : Status();
  }

  asio::awaitable<void> accept_clients(Tcp::acceptor& acceptor) {
    asio::steady_timer pause(hall_.io);
    while (!stopping_) {
      auto [error, socket] = co_await acceptor.async_accept(kNoThrow);
      if (!error) error = admitted(std::move(socket));
      if (error && !stopping_) {
        pause.expires_after(kAcceptPause);
        [[maybe_unused]] const auto [cancelled] = co_await pause.async_wait(kNoThrow);
      }
    }
  }

  /// An error where there is no memory for this client; the next may come.
  error_code admitted(Tcp::socket socket) {
    try {
      admit(std::move(socket));
    } catch (const std::exception&) {
      return asio::error::no_memory;
    }
    return {};
  }

  void admit(Tcp::socket socket) {
    error_code error;
    const Tcp::endpoint endpoint = socket.remote_endpoint(error);
    if (error) return;
    std::string peer = endpoint.address().to_string();
    const auto same = hall_.per_address.find(peer);
    const int from_there = same == hall_.per_address.end() || is_loopback(endpoint) ? 0 : same->second;
    if (hall_.connections.size() >= static_cast<std::size_t>(hall_.options.max_connections) ||
        from_there >= hall_.options.max_connections_per_address) {
      return;  // closes it
    }
    std::ignore = socket.set_option(Tcp::no_delay(true), error);
    if (tls_) {
      spawn(TlsStream(beast::tcp_stream(std::move(socket)), *tls_), std::move(peer));
    } else {
      spawn(beast::tcp_stream(std::move(socket)), std::move(peer));
    }
  }

  template <typename Stream>
  void spawn(Stream stream, std::string peer) {
    auto connection = std::make_shared<ClientConnection<Stream>>(hall_, std::move(stream), std::move(peer));
    asio::co_spawn(hall_.io, ClientConnection<Stream>::run(std::move(connection)), asio::detached);
  }

  Hall hall_;
  std::optional<asio::ssl::context> tls_;
  std::vector<Tcp::acceptor> acceptors_;
  std::uint16_t port_ = 0;
  bool stopping_ = false;  // the thread's
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpServerOptions options, HttpHandler& handler) {
  auto server = std::make_unique<BeastServer>(std::move(options), handler);
  LANNER_RETURN_IF_ERROR(server->open());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace lanner::server
