#include "server/upstreams.h"

// <utility> stands before Asio: with g++ 12, Asio 1.81 uses std::exchange without including it.
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <algorithm>
#include <array>
#include <exception>
#include <mutex>
#include <thread>
#include <tuple>
#include <vector>

#include "core/ascii.h"
#include "net/url.h"

namespace lanner::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Tcp = asio::ip::tcp;
using AnswerParser = http::response_parser<http::buffer_body>;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t kReadBytes = 16 << 10;
constexpr std::size_t kMaxWaitingBytes = 256 << 10;  // that the client has not taken; beyond, nothing is read
constexpr std::uint32_t kMaxHeaderBytes = 64 << 10;

/// Of an answer: those that the proxy does not write itself.
bool is_passed_on(std::string_view name) {
  constexpr std::array kOwn{"proxy-authenticate", "content-type", "date", "server", "x-content-type-options"};
  return !is_written_anew(name) && std::ranges::find(kOwn, name) == kOwn.end() && !name.starts_with("access-control-");
}

/// One request on its way: an answer that comes late to the client, and the coroutine that gets it.
class Relay final : public LateAnswer, public std::enable_shared_from_this<Relay> {
 public:
  Relay(asio::io_context& io, const UpstreamOptions& options, UpstreamPlan plan)
      : io_(io), options_(options), plan_(std::move(plan)), stream_(io), room_(io) {}

  // The server's side.

  void start(std::function<void()> wake) override {
    const std::lock_guard lock(mutex_);
    wake_ = std::move(wake);
    awake_ = false;
    if (head_known_) wake_client();
  }
  bool know_head(HttpReply& head) override {
    const std::lock_guard lock(mutex_);
    awake_ = false;
    if (!head_known_) return false;
    head.status = head_.status;
    head.content_type = head_.content_type;
    head.headers = head_.headers;
    return true;
  }
  Piece take() override {
    Piece piece;
    bool was_full = false;
    {
      const std::lock_guard lock(mutex_);
      awake_ = false;
      was_full = bytes_.size() > kMaxWaitingBytes;
      piece.bytes.swap(bytes_);
      piece.done = done_;
      piece.broken = broken_;
    }
    if (was_full) asio::post(io_, [self = shared_from_this()] { self->room_.cancel(); });
    return piece;
  }
  bool streams() const override { return true; }
  HttpReply reply() override { return {}; }
  void cancel() override {
    {
      const std::lock_guard lock(mutex_);
      left_ = true;
      wake_ = nullptr;
      bytes_.clear();
    }
    asio::post(io_, [self = shared_from_this()] {
      self->stream_.close();
      self->room_.cancel();
    });
  }

  // The coroutine's.

  static asio::awaitable<void> run(std::shared_ptr<Relay> self) {
    std::optional<std::string> node;
    bool answered = false;
    try {
      node = self->plan_.next();
      while (node && !answered && !self->left()) {
        const Outcome outcome = co_await self->attempt(*node);
        answered = outcome == Outcome::kAnswered || outcome == Outcome::kNoMatter;
        const std::string asked = *std::exchange(node, std::nullopt);
        self->plan_.ended(asked, outcome);
        if (!answered) node = self->plan_.next();
      }
    } catch (const std::exception&) {
      // For lack of memory, mostly: this answer ends, and the others go on.
      answered = self->break_off();
    }
    if (node) self->plan_.ended(*node, Outcome::kNoMatter);
    if (!answered) self->give(self->plan_.unreachable);
  }

 private:
  // Under the mutex.
  void wake_client() {
    if (!wake_ || std::exchange(awake_, true)) return;
    wake_();  // it only leaves a note for another thread
  }

  bool left() {
    const std::lock_guard lock(mutex_);
    return left_;
  }

  void give_head(HttpReply head) {
    const std::lock_guard lock(mutex_);
    head_ = std::move(head);
    head_known_ = true;
    wake_client();
  }
  void give_bytes(std::string_view bytes) {
    const std::lock_guard lock(mutex_);
    if (!left_) bytes_ += bytes;
    wake_client();
  }
  void give_end(bool broken) {
    const std::lock_guard lock(mutex_);
    done_ = true;
    broken_ = broken;
    wake_client();
  }
  /// Ends what has begun; false where nothing was handed on yet.
  bool break_off() {
    const std::lock_guard lock(mutex_);
    if (!head_known_) return false;
    done_ = true;
    broken_ = true;
    wake_client();
    return true;
  }
  void give(const HttpReply& whole) {
    give_head(whole);
    give_bytes(whole.body);
    give_end(false);
  }

  /// One node. kFailed and kBusy only where nothing has been handed on.
  asio::awaitable<Outcome> attempt(std::string node) {
    const Result<net::Url> url = net::parse_url(node);
    if (!url.ok()) co_return Outcome::kFailed;
    Tcp::resolver resolver(io_);
    const std::string port = std::to_string(url->port);
    const auto [name_error, found] =
        co_await resolver.async_resolve(url->host, port, Tcp::resolver::numeric_service, kNoThrow);
    if (name_error) co_return Outcome::kFailed;
    stream_.close();
    stream_.expires_after(options_.connect_timeout);
    const auto [connect_error, endpoint] = co_await stream_.async_connect(found, kNoThrow);
    if (left()) co_return Outcome::kNoMatter;
    if (connect_error) co_return Outcome::kFailed;
    error_code ignored;
    std::ignore = stream_.socket().set_option(Tcp::no_delay(true), ignored);

    http::request<http::string_body> request{http::string_to_verb(plan_.method), plan_.target, 11};
    for (const auto& [name, value] : plan_.headers) request.insert(name, value);
    request.set(http::field::host, url->authority());
    request.set(http::field::connection, "close");
    request.body() = plan_.body;
    request.content_length(plan_.body.size());
    wait_for_answer();
    const auto [write_error, written] = co_await http::async_write(stream_, request, kNoThrow);
    if (left()) co_return Outcome::kNoMatter;
    if (write_error) co_return Outcome::kFailed;

    AnswerParser parser;
    parser.body_limit(boost::none);
    parser.header_limit(kMaxHeaderBytes);
    beast::flat_buffer buffer;
    wait_for_answer();
    const auto [read_error, read] = co_await http::async_read_header(stream_, buffer, parser, kNoThrow);
    if (left()) co_return Outcome::kNoMatter;
    if (read_error == beast::error::timeout) {  // it may be at work all the same
      give(plan_.too_late);
      co_return Outcome::kNoMatter;
    }
    if (read_error) co_return Outcome::kFailed;
    const unsigned status = parser.get().result_int();
    if ((status == 429 || status == 503) && plan_.has_next()) co_return Outcome::kBusy;
    const bool events = pass_head(parser);
    const bool whole = co_await pass_body(parser, buffer, events);
    co_return whole ? Outcome::kAnswered : Outcome::kNoMatter;
  }

  void wait_for_answer() {
    if (options_.answer_timeout.count() > 0) {
      stream_.expires_after(options_.answer_timeout);
    } else {
      stream_.expires_never();
    }
  }

  /// Whether it is a stream of events.
  bool pass_head(const AnswerParser& parser) {
    HttpReply head;
    head.status = static_cast<int>(parser.get().result_int());
    head.content_type = std::string(parser.get()[http::field::content_type]);
    for (const auto& field : parser.get().base()) {
      const std::string name = lower_case(std::string_view(field.name_string()));
      if (is_passed_on(name)) head.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
    }
    const bool events = head.content_type.starts_with("text/event-stream");
    give_head(std::move(head));
    return events;
  }

  /// False when it broke off.
  asio::awaitable<bool> pass_body(AnswerParser& parser, beast::flat_buffer& buffer, bool events) {
    std::vector<char> bytes(kReadBytes);
    while (!parser.is_done()) {
      parser.get().body().data = bytes.data();
      parser.get().body().size = bytes.size();
      wait_for_answer();
      const auto [error, count] = co_await http::async_read_some(stream_, buffer, parser, kNoThrow);
      const std::size_t got = bytes.size() - parser.get().body().size;
      if (got > 0) give_bytes({bytes.data(), got});
      if (error && error != http::error::need_buffer) {
        break_off(events);
        co_return false;
      }
      co_await wait_for_room();
      if (left()) co_return false;
    }
    give_end(false);
    co_return true;
  }

  void break_off(bool events) {
    if (events) {
      give_bytes(
          "\n\ndata: {\"error\":{\"message\":\"the server behind the proxy broke off\",\"type\":\"server_error\","
          "\"param\":null,\"code\":\"upstream_failed\"},\"object\":\"error\"}\n\ndata: [DONE]\n\n");
    }
    give_end(!events);
  }

  asio::awaitable<void> wait_for_room() {
    while (is_full()) {
      room_.expires_at(Clock::time_point::max());
      // Between the two lines nothing else runs on this thread; what take() posts comes after.
      [[maybe_unused]] const auto [cancelled] = co_await room_.async_wait(kNoThrow);
    }
  }
  bool is_full() {
    const std::lock_guard lock(mutex_);
    return !left_ && bytes_.size() > kMaxWaitingBytes;
  }

  asio::io_context& io_;
  const UpstreamOptions& options_;
  const UpstreamPlan plan_;
  // The coroutine's thread's:
  beast::tcp_stream stream_;
  asio::steady_timer room_;

  std::mutex mutex_;
  // Under it:
  std::function<void()> wake_;
  HttpReply head_;
  std::string bytes_;
  bool head_known_ = false;
  bool done_ = false;
  bool broken_ = false;
  bool awake_ = false;  // wake_ was called and nothing taken since
  bool left_ = false;   // the client
};

}  // namespace

bool is_written_anew(std::string_view name) {
  constexpr std::array kNames{"connection", "keep-alive",     "te",          "trailer", "transfer-encoding",
                              "upgrade",    "content-length", "x-request-id"};
  return std::ranges::find(kNames, name) != kNames.end();
}

class Upstreams::Thread {
 public:
  explicit Thread(UpstreamOptions the_options)
      : options(the_options), guard_(asio::make_work_guard(io)), thread_([this] { io.run(); }) {}
  ~Thread() {
    io.stop();
    thread_.join();
  }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  const UpstreamOptions options;
  asio::io_context io{1};

 private:
  asio::executor_work_guard<asio::io_context::executor_type> guard_;
  std::thread thread_;
};

Upstreams::Upstreams(UpstreamOptions options) : thread_(std::make_unique<Thread>(options)) {}
Upstreams::~Upstreams() = default;

HttpReply Upstreams::forward(UpstreamPlan plan) {
  const auto relay = std::make_shared<Relay>(thread_->io, thread_->options, std::move(plan));
  asio::co_spawn(thread_->io, Relay::run(relay), asio::detached);
  HttpReply reply;
  reply.late = relay;
  return reply;
}

}  // namespace lanner::server
