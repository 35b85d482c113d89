// The sockets: framing, limits, timeouts, clients that leave, the end. What is answered comes from a small handler.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/http_server.h"

namespace lanner::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// A client that sends bytes as they are.
class RawClient {
 public:
  explicit RawClient(std::uint16_t port, int receive_bytes = 0) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_bytes > 0) ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~RawClient() { leave(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  /// What comes until `end` has come, the server closes, or five seconds are over.
  std::string receive(std::string_view end = "") {
    std::string all;
    std::string chunk(65536, '\0');
    const auto until = std::chrono::steady_clock::now() + seconds(5);
    while (std::chrono::steady_clock::now() < until) {
      pollfd watched{socket_, POLLIN, 0};
      if (::poll(&watched, 1, 50) <= 0) continue;
      const ssize_t got = ::recv(socket_, chunk.data(), chunk.size(), 0);
      closed_ = got <= 0;
      if (closed_) break;
      all.append(chunk.data(), static_cast<std::size_t>(got));
      if (!end.empty() && all.ends_with(end)) break;
    }
    return all;
  }
  std::size_t receive_some() const {
    std::string chunk(65536, '\0');
    const ssize_t got = ::recv(socket_, chunk.data(), chunk.size(), 0);
    return got > 0 ? static_cast<std::size_t>(got) : 0;
  }
  bool closed() const { return closed_; }
  void leave() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }

 private:
  int socket_;
  bool closed_ = false;
};

/// Goes on for as long as somebody listens, or until it has sent `pieces`.
class TestAnswer final : public LateAnswer {
 public:
  /// `fails`: for lack of memory, after some pieces.
  TestAnswer(bool streams, int pieces, std::string piece, bool fails = false)
      : streams_(streams), pieces_(pieces), piece_(std::move(piece)), fails_(fails) {}
  ~TestAnswer() override { thread_.join(); }

  void start(std::function<void()> wake) override {
    thread_ = std::thread([this, wake = std::move(wake)] {
      for (int i = 0; i < pieces_; ++i) {
        std::this_thread::sleep_for(milliseconds(1));
        const std::lock_guard lock(mutex_);
        if (cancelled_) return;
        ++ready_;
        wake();
      }
    });
  }
  Piece take() override {
    const std::lock_guard lock(mutex_);
    Piece piece;
    if (fails_ && ready_ > 2) throw std::bad_alloc();
    for (; taken_ < ready_; ++taken_) piece.bytes += piece_;
    piece.done = taken_ == pieces_;
    return piece;
  }
  bool streams() const override { return streams_; }
  HttpReply reply() override {
    replied_by = std::this_thread::get_id();
    return {.content_type = "text/plain", .body = "whole"};
  }
  bool reply_takes_long() const override { return takes_long; }
  bool know_head(HttpReply& head) override {
    const std::lock_guard lock(mutex_);
    if (ready_ < head_comes_after) return false;
    if (head_comes_after > 0) head.status = 418;
    return true;
  }
  void cancel() override {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }

  int head_comes_after = 0;  // pieces
  bool takes_long = false;
  std::thread::id replied_by;

 private:
  const bool streams_;
  const int pieces_;
  const std::string piece_;
  const bool fails_;
  std::mutex mutex_;
  int ready_ = 0;
  int taken_ = 0;
  bool cancelled_ = false;
  std::thread thread_;
};

class TestHandler final : public HttpHandler {
 public:
  std::optional<HttpReply> screen(HttpRequest& head) override {
    if (head.path == "/forbidden") return HttpReply{.status = 403, .content_type = "text/plain", .body = "no"};
    return std::nullopt;
  }
  Pace pace(const HttpRequest& request) const override {
    if (request.path == "/wait") return Pace::kWaits;
    return request.path == "/quick" || request.path == "/block" ? Pace::kAtOnce : Pace::kSoon;
  }
  HttpReply handle(const HttpRequest& request) override {
    if (request.path == "/quick") quick_by = std::this_thread::get_id();
    if (request.path == "/block") std::this_thread::sleep_for(milliseconds(300));
    if (request.path == "/throw") throw std::runtime_error("secret");
    if (request.path == "/wait") {
      for (int i = 0; i < 500 && !*request.client_left; ++i) std::this_thread::sleep_for(milliseconds(10));
      saw_client_leave = request.client_left->load();
    }
    if (request.path == "/big") return {.content_type = "text/plain", .body = std::string(16 << 20, 'x')};
    if (request.path == "/late-head" || request.path == "/long-reply") {
      last_answer = std::make_shared<TestAnswer>(request.path == "/late-head", 3, "ab");
      last_answer->head_comes_after = request.path == "/late-head" ? 2 : 0;
      last_answer->takes_long = request.path == "/long-reply";
      HttpReply reply{.content_type = "text/plain"};
      reply.late = last_answer;
      return reply;
    }
    HttpReply reply{.content_type = "text/plain",
                    .body = request.method + " " + request.path + "?" + request.query + " " + request.body};
    if (request.path == "/later") reply.late = std::make_shared<TestAnswer>(false, 5, "");
    if (request.path == "/slow") reply.late = std::make_shared<TestAnswer>(false, 200, "");
    if (request.path == "/stream") reply.late = std::make_shared<TestAnswer>(true, 3, "ab");
    if (request.path == "/endless") reply.late = std::make_shared<TestAnswer>(true, 1'000'000, "ab");
    if (request.path == "/never") reply.late = std::make_shared<TestAnswer>(false, 1'000'000, "");
    if (request.path == "/breaks") reply.late = std::make_shared<TestAnswer>(true, 20'000, "ab", true);
    if (request.path == "/fails") reply.late = std::make_shared<TestAnswer>(false, 20'000, "", true);
    if (request.path == "/torrent")
      reply.late = std::make_shared<TestAnswer>(true, 1'000'000, std::string(100'000, 'x'));
    return reply;
  }
  HttpReply refuse(int status, const std::string& message) override {
    return {.status = status, .content_type = "text/plain", .body = message};
  }
  Headers common_headers(const HttpRequest& /*request*/) const override { return {{"X-Common", "1"}}; }
  void finished(const HttpRequest& /*request*/, const HttpOutcome& outcome) override {
    const std::lock_guard lock(mutex_);
    outcomes_.push_back(outcome);
    changed_.notify_all();
  }

  /// The n-th exchange, once it is over.
  HttpOutcome outcome(std::size_t n) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, seconds(10), [&] { return outcomes_.size() > n; }));
    return outcomes_.size() > n ? outcomes_[n] : HttpOutcome();
  }

  std::atomic<bool> saw_client_leave = false;
  std::atomic<std::thread::id> quick_by;  // the thread of input and output
  std::shared_ptr<TestAnswer> last_answer;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<HttpOutcome> outcomes_;
};

class HttpServerTest : public testing::Test {
 protected:
  void start(HttpServerOptions options = {}) {
    auto started = HttpServer::start(std::move(options), handler_);
    ASSERT_TRUE(started.ok()) << started.status().message();
    server_ = *std::move(started);
  }
  std::string ask(const std::string& request) {
    RawClient client(server_->port());
    client.send(request);
    return client.receive();
  }
  static bool has_status(const std::string& reply, int status) {
    return reply.starts_with("HTTP/1.1 " + std::to_string(status) + " ");
  }
  /// Whether the server comes to have this many clients within ten seconds.
  bool comes_to(int connections) {
    for (int i = 0; i < 1000 && server_->connections() != connections; ++i)
      std::this_thread::sleep_for(milliseconds(10));
    return server_->connections() == connections;
  }

  TestHandler handler_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersOneRequestAfterTheOther) {
  start();
  RawClient client(server_->port());
  client.send("GET /quick?a=1 HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string first = client.receive("a=1 ");
  EXPECT_TRUE(first.starts_with("HTTP/1.1 200 OK\r\n")) << first;
  EXPECT_NE(first.find("\r\nX-Common: 1\r\n"), std::string::npos);
  EXPECT_NE(first.find("\r\nDate: "), std::string::npos);
  EXPECT_TRUE(first.ends_with("\r\n\r\nGET /quick?a=1 "));
  client.send("POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_TRUE(client.receive("hello").ends_with("POST /e? hello"));
  client.send("POST /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_TRUE(client.receive("abcde").ends_with("POST /e? abcde"));
  client.send("GET /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  client.receive();
  EXPECT_TRUE(client.closed());
  EXPECT_TRUE(comes_to(0));
}

TEST_F(HttpServerTest, AnswersRequestsThatComeTogetherInOrder) {
  start();
  std::string requests;
  for (int i = 0; i < 100; ++i) requests += "GET /p" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n";
  RawClient client(server_->port());
  client.send(requests);
  const std::string replies = client.receive("/p99? ");
  std::size_t at = 0;
  for (int i = 0; i < 100; ++i) {
    at = replies.find("GET /p" + std::to_string(i) + "? ", at);
    ASSERT_NE(at, std::string::npos) << i;
  }
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  start();
  RawClient client(server_->port());
  client.send("HEAD /quick HTTP/1.1\r\nHost: x\r\n\r\nGET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string both = client.receive();
  EXPECT_NE(both.find("Content-Length: 13\r\n"), std::string::npos) << both;
  EXPECT_EQ(both.find("HEAD /quick?"), std::string::npos);
  EXPECT_TRUE(both.ends_with("GET /quick? "));
}

TEST_F(HttpServerTest, LateAnswers) {
  start();
  EXPECT_TRUE(ask("GET /later HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ends_with("\r\n\r\nwhole"));
  const std::string stream = ask("GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_NE(stream.find("Transfer-Encoding: chunked"), std::string::npos);
  EXPECT_TRUE(stream.ends_with("\r\n0\r\n\r\n")) << stream;
  const std::string old = ask("GET /stream HTTP/1.0\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(old.ends_with("\r\n\r\nababab")) << old;
}

TEST_F(HttpServerTest, HeadsThatComeLate) {
  start();
  const std::string reply = ask("GET /late-head HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(has_status(reply, 418)) << reply;
  EXPECT_TRUE(reply.ends_with("\r\n0\r\n\r\n")) << reply;
}

TEST_F(HttpServerTest, LongRepliesAreMadeByAnotherThread) {
  start();
  ask("GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(ask("GET /long-reply HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ends_with("\r\n\r\nwhole"));
  EXPECT_NE(handler_.last_answer->replied_by, handler_.quick_by.load());
}

TEST_F(HttpServerTest, TellsWhoWaitsThatTheClientLeft) {
  start();
  RawClient client(server_->port());
  client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_FALSE(handler_.saw_client_leave);
  client.leave();
  EXPECT_TRUE(comes_to(0));
  EXPECT_TRUE(handler_.saw_client_leave);
}

TEST_F(HttpServerTest, OneFailureIsOneAnswer) {
  start();
  const std::string reply = ask("GET /throw HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(has_status(reply, 500)) << reply;
  EXPECT_EQ(reply.find("secret"), std::string::npos);
  EXPECT_TRUE(has_status(ask("GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 200));
}

TEST_F(HttpServerTest, AnAnswerThatBreaksEndsItsConnectionAlone) {
  start();
  RawClient other(server_->port());
  for (const char* path : {"/breaks", "/fails"}) {
    RawClient client(server_->port());
    client.send("GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n");
    client.receive();
    EXPECT_TRUE(client.closed()) << path;
    EXPECT_TRUE(comes_to(1)) << path;  // long before the answer's thread would end of itself
  }
  other.send("GET /quick HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(has_status(other.receive("quick? "), 200));
}

TEST_F(HttpServerTest, SeesAClientLeave) {
  start();
  for (const char* path : {"/never", "/endless"}) {
    RawClient client(server_->port());
    client.send("GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n");
    std::this_thread::sleep_for(milliseconds(30));
    client.leave();
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_TRUE(comes_to(0)) << path;  // the answer's thread ends with it, or this test does not
    EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(5));
  }
  EXPECT_TRUE(handler_.outcome(0).client_left);
  EXPECT_TRUE(handler_.outcome(1).client_left);
}

TEST_F(HttpServerTest, RefusesWhatIsTooLarge) {
  start({.max_header_bytes = 2048, .max_body_bytes = 1000, .max_bodies_bytes = 1500});
  EXPECT_TRUE(has_status(ask("GET / HTTP/1.1\r\nX: " + std::string(5000, 'a') + "\r\n\r\n"), 431));
  EXPECT_TRUE(has_status(ask("POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n"), 413));
  EXPECT_TRUE(
      has_status(ask("POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n" + std::string(1001, 'a')), 413));
  EXPECT_TRUE(has_status(
      ask("POST /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + std::string(2000, 'a')), 413));
  EXPECT_TRUE(has_status(ask("POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n"), 400));
  // All bodies together.
  RawClient first(server_->port());
  first.send("POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + std::string(900, 'a'));
  const std::string body(800, 'b');
  const std::string second = "POST /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 800\r\n\r\n" + body;
  bool full = false;  // once the server has read what the first one sent
  for (int i = 0; i < 100 && !full; ++i) {
    full = has_status(ask(second), 503);
    if (!full) std::this_thread::sleep_for(milliseconds(50));
  }
  EXPECT_TRUE(full);
  first.send(std::string(100, 'a'));
  EXPECT_TRUE(has_status(first.receive(std::string(1000, 'a')), 200));
  EXPECT_TRUE(has_status(ask(second), 200));
}

TEST_F(HttpServerTest, RefusesWhatIsNoHttp) {
  start();
  for (const char* bytes :
       {"nonsense\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello of TLS\r\n\r\n"}) {
    const std::string reply = ask(bytes);
    EXPECT_TRUE(has_status(reply, 400)) << bytes << reply;
    EXPECT_EQ(reply.find("HTTP/1.1", 8), std::string::npos) << "a second answer: " << reply;
  }
  // Where a proxy in front might see another end of the request.
  for (const char* header :
       {"HTTP/1.1\r\nTransfer-Encoding: gzip", "HTTP/1.1\r\nTransfer-Encoding: xchunked\r\nContent-Length: 4",
        "HTTP/1.1\r\nTransfer-Encoding: gzip, chunked", "HTTP/1.1\r\nTransfer-Encoding: identity",
        "HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "HTTP/1.0\r\nTransfer-Encoding: chunked"}) {
    const std::string reply =
        ask("POST /e " + std::string(header) + "\r\nHost: x\r\n\r\n0\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_TRUE(reply.starts_with("HTTP/1.1 501 ") || reply.starts_with("HTTP/1.0 501 ") ||
                reply.starts_with("HTTP/1.1 400 "))
        << header << reply;
    EXPECT_EQ(reply.find("HTTP/1.1", 8), std::string::npos) << "a second answer: " << reply;
  }
}

TEST_F(HttpServerTest, DoesNotReadTheBodyOfWhatItRefuses) {
  start();
  const std::string reply =
      ask("POST /forbidden HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + std::string(5000, 'a'));
  EXPECT_TRUE(has_status(reply, 403)) << reply;
  EXPECT_TRUE(reply.ends_with("no"));
}

TEST_F(HttpServerTest, SaysThatAClientMayGoOn) {
  start();
  RawClient client(server_->port());
  client.send("POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.receive("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("ab");
  EXPECT_TRUE(has_status(client.receive(" ab"), 200));
}

TEST_F(HttpServerTest, GivesUpOnSlowClients) {
  start({.header_timeout = milliseconds(200), .body_timeout = milliseconds(300), .idle_timeout = milliseconds(250)});
  RawClient idle(server_->port());
  EXPECT_EQ(idle.receive(), "");
  EXPECT_TRUE(idle.closed());
  RawClient header(server_->port());
  header.send("GET / HT");
  EXPECT_EQ(header.receive(), "");
  EXPECT_TRUE(header.closed());
  RawClient body(server_->port());
  body.send("POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(body.receive(), "");
  EXPECT_TRUE(body.closed());
}

TEST_F(HttpServerTest, GivesUpOnSlowReaders) {
  start({.write_timeout = milliseconds(300)});
  RawClient client(server_->port());
  client.send("GET /torrent HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(handler_.outcome(0).client_left);
  EXPECT_TRUE(comes_to(0));
}

TEST_F(HttpServerTest, ALongBodyMayTakeLongWhileItIsTaken) {
  start({.write_timeout = milliseconds(400)});
  RawClient idle(server_->port());
  idle.send("GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(handler_.outcome(0).client_left);  // soon, however long the body is
  RawClient client(server_->port(), /*receive_bytes=*/64 << 10);
  client.send("GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const auto begin = std::chrono::steady_clock::now();
  std::size_t bytes = 0;
  for (std::size_t got = 1; got > 0; bytes += got) {
    std::this_thread::sleep_for(milliseconds(5));
    got = client.receive_some();
  }
  EXPECT_GT(bytes, 16U << 20U);
  EXPECT_GT(std::chrono::steady_clock::now() - begin, milliseconds(800));
  EXPECT_FALSE(handler_.outcome(1).client_left);
}

TEST_F(HttpServerTest, HasRoomForSoManyConnections) {
  start({.max_connections = 2});
  RawClient first(server_->port());
  RawClient second(server_->port());
  ASSERT_TRUE(comes_to(2));
  RawClient third(server_->port());
  EXPECT_EQ(third.receive(), "");
  EXPECT_TRUE(third.closed());
  first.leave();
  ASSERT_TRUE(comes_to(1));
  EXPECT_TRUE(has_status(ask("GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 200));
}

TEST_F(HttpServerTest, Drains) {
  start();
  RawClient idle(server_->port());
  RawClient busy(server_->port());
  busy.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(comes_to(2));
  server_->drain();
  idle.receive();
  EXPECT_TRUE(idle.closed());
  const std::string reply = busy.receive();
  EXPECT_NE(reply.find("Connection: close"), std::string::npos) << reply;
  EXPECT_TRUE(reply.ends_with("whole"));
  EXPECT_TRUE(comes_to(0));
  EXPECT_TRUE(has_status(ask("GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"), 200));  // answered, and then closed
}

TEST_F(HttpServerTest, DrainsWithAnAnswerToWhatHasCome) {
  start();
  RawClient client(server_->port());
  client.send("GET /quick HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(has_status(client.receive("quick? "), 200));
  RawClient blocker(server_->port());
  blocker.send("GET /block HTTP/1.1\r\nHost: x\r\n\r\n");
  std::this_thread::sleep_for(milliseconds(100));
  client.send("GET /quick HTTP/1.1\r\nHost: x\r\n\r\n");  // while nobody looks
  server_->drain();
  const std::string reply = client.receive();
  EXPECT_TRUE(has_status(reply, 200)) << reply;
  EXPECT_NE(reply.find("Connection: close"), std::string::npos) << reply;
  EXPECT_TRUE(client.closed());
}

TEST_F(HttpServerTest, StopsInTheMiddleOfEverything) {
  start();
  std::vector<std::unique_ptr<RawClient>> clients;
  for (const char* path : {"/endless", "/never", "/torrent", "/quick"}) {
    clients.push_back(std::make_unique<RawClient>(server_->port()));
    clients.back()->send("GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  clients.push_back(std::make_unique<RawClient>(server_->port()));
  clients.back()->send("POST /e HTTP/1.1\r\nContent-Length: 100\r\n\r\nab");
  ASSERT_TRUE(comes_to(5));
  std::this_thread::sleep_for(milliseconds(50));
  server_->stop();
  EXPECT_EQ(server_->connections(), 0);
  server_->stop();  // once more does nothing
}

TEST_F(HttpServerTest, SaysWhereItCannotListen) {
  start();
  const auto taken = HttpServer::start({.port = server_->port()}, handler_);
  EXPECT_EQ(taken.status().code(), StatusCode::kIo);
  const auto nowhere = HttpServer::start({.host = "no.such.host.invalid"}, handler_);
  EXPECT_EQ(nowhere.status().code(), StatusCode::kIo);
  const auto no_file = HttpServer::start({.certificate_file = "/none", .key_file = "/none"}, handler_);
  EXPECT_EQ(no_file.status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lanner::server
