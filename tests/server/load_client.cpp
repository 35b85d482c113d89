// Puts load on a server, from a process of its own, and says what came back. What it measures, it measures of the
// server: one thread with epoll, requests that are written before the clock starts, answers that are hardly looked at.
//
//   load_client --port N [--path P] [--body JSON] [--connections N] [--requests N] [--seconds N] [--rate N]
//               [--cut 1] [--expect TEXT] [--idle N] [--slow N] [--settle-ms N]
//
// Each connection sends its next request when it has its answer (closed loop), until --requests have been sent or
// --seconds are over; then the last answers are awaited. With --rate, so many begin a second, whatever comes back, on
// connections that are free or new ones. --cut leaves each stream after its first event. --expect: the content of all
// events of each stream must be this. --idle connections are held open meanwhile, --slow ones too, with requests that
// never end. Prints a JSON object.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr std::chrono::seconds kPatience(60);  // with the last answers

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "load_client: %s\n", message.c_str());
  std::exit(1);
}

int connected(std::uint16_t port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (socket < 0 || ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    fail(fmt::format("cannot connect: {}", std::error_code(errno, std::system_category()).message()));
  }
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return socket;
}

void send_all(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;  // the answer, or its absence, says why
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

std::size_t count_of(std::string_view text, std::string_view what) {
  std::size_t count = 0;
  for (std::size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + what.size())) ++count;
  return count;
}

/// The content of all "delta"s of a stream's events, and whether it ended as it should.
std::string content_of(std::string_view body) {
  std::string content;
  bool done = false;
  while (!body.empty()) {
    const std::size_t end = body.find("\n\n");
    if (end == std::string_view::npos || !body.starts_with("data: ")) return "(not an event stream)";
    const std::string_view data = body.substr(6, end - 6);
    body.remove_prefix(end + 2);
    done = data == "[DONE]";
    if (done) continue;
    const Json event = Json::parse(data, nullptr, false);
    if (event.is_discarded() || !event.contains("choices")) return "(not an event)";
    for (const Json& choice : event["choices"]) content += choice["delta"].value("content", "");
  }
  return done ? content : "(cut off)";
}

/// One HTTP answer as it comes.
class Answer {
 public:
  enum class State : std::uint8_t { kComing, kWhole, kBroken };

  /// `keep`: the body's bytes are wanted, not only their count.
  State add(std::string_view bytes, bool keep) {
    if (!head_done_) {
      head_ += bytes;
      const std::size_t end = head_.find("\r\n\r\n");
      if (end == std::string::npos) return State::kComing;
      head_done_ = true;
      const std::string rest = head_.substr(end + 4);
      head_.resize(end);
      if (!read_head()) return State::kBroken;
      return add_body(rest, keep);
    }
    return add_body(bytes, keep);
  }

  int status() const { return status_; }
  std::size_t events() const { return events_; }
  const std::string& body() const { return body_; }

 private:
  bool read_head() {
    if (head_.size() < 12) return false;
    status_ = std::atoi(head_.c_str() + 9);
    chunked_ = head_.find("Transfer-Encoding: chunked") != std::string::npos;
    constexpr std::string_view kLength = "Content-Length: ";
    const std::size_t at = head_.find(kLength);
    if (at != std::string::npos) left_ = std::strtoull(head_.c_str() + at + kLength.size(), nullptr, 10);
    return chunked_ || at != std::string::npos;
  }

  State add_body(std::string_view bytes, bool keep) {
    if (!chunked_) {
      take(bytes, keep);
      left_ -= std::min<std::uint64_t>(left_, bytes.size());
      return left_ == 0 ? State::kWhole : State::kComing;
    }
    while (!bytes.empty()) {
      if (left_ > 0) {  // of a chunk, with the line end behind it
        const std::size_t now = std::min<std::uint64_t>(left_, bytes.size());
        const std::size_t content = left_ > 2 ? std::min<std::uint64_t>(left_ - 2, now) : 0;
        take(bytes.substr(0, content), keep);
        bytes.remove_prefix(now);
        left_ -= now;
        if (left_ == 0 && last_) return State::kWhole;
        continue;
      }
      const std::size_t end = bytes.find('\n');
      size_line_ += bytes.substr(0, end);
      if (end == std::string_view::npos) return State::kComing;
      bytes.remove_prefix(end + 1);
      left_ = std::strtoull(size_line_.c_str(), nullptr, 16) + 2;
      last_ = left_ == 2;
      size_line_.clear();
    }
    return State::kComing;
  }

  /// The server ends an event and a chunk together, so that none is cut in two by a chunk, though it may be by a read.
  void take(std::string_view bytes, bool keep) {
    if (keep) body_ += bytes;
    events_ += count_of(bytes, "\"content\":");
  }

  std::string head_;
  bool head_done_ = false;
  int status_ = 0;
  bool chunked_ = false;
  bool last_ = false;
  std::uint64_t left_ = 0;
  std::string size_line_;
  std::size_t events_ = 0;
  std::string body_;
};

struct Options {
  std::uint16_t port = 0;
  std::string request;
  std::string expect;
  int connections = 1;
  std::int64_t requests = 0;  // 0: as many as the time lets
  double seconds = 5;
  double rate = 0;
  bool cut = false;
  int idle = 0;
  int slow = 0;
  int settle_ms = 0;  // between the idle connections and the load
};

struct Client {
  int socket = -1;
  Answer answer;
  Clock::time_point sent;
  bool busy = false;
};

class Load {
 public:
  explicit Load(Options options) : options_(std::move(options)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

  Json run() {
    hold_connections();
    std::this_thread::sleep_for(std::chrono::milliseconds(options_.settle_ms));
    for (int i = 0; i < options_.connections; ++i) free_.push_back(connect_one());
    const Clock::time_point begin = Clock::now();
    until_ = begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options_.seconds));
    begin_ = begin;
    while (true) {
      begin_due();
      if (busy_ == 0 && over()) break;
      if (Clock::now() > until_ + kPatience) break;
      wait();
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    return report(seconds);
  }

 private:
  void hold_connections() {
    for (int i = 0; i < options_.idle; ++i) connected(options_.port);
    for (int i = 0; i < options_.slow; ++i) {
      const std::string_view all = options_.request;
      send_all(connected(options_.port), i % 2 == 0 ? all.substr(0, all.size() - 5) : all.substr(0, 30));
    }
  }

  std::size_t connect_one() {
    clients_.push_back({.socket = connected(options_.port)});
    epoll_event event{.events = EPOLLIN, .data = {.u64 = clients_.size() - 1}};
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, clients_.back().socket, &event);
    return clients_.size() - 1;
  }

  bool over() const { return Clock::now() >= until_ || (options_.requests > 0 && begun_ >= options_.requests); }

  void begin_due() {
    if (options_.rate <= 0) {
      while (!free_.empty() && !over()) begin_one();
      return;
    }
    const double elapsed = std::chrono::duration<double>(Clock::now() - begin_).count();
    while (!over() && static_cast<double>(begun_) < elapsed * options_.rate) {
      if (free_.empty()) free_.push_back(connect_one());
      begin_one();
    }
  }

  void begin_one() {
    Client& client = clients_[free_.front()];
    free_.pop_front();
    client.answer = Answer();
    client.busy = true;
    client.sent = Clock::now();
    ++begun_;
    ++busy_;
    send_all(client.socket, options_.request);
  }

  void wait() {
    std::array<epoll_event, 256> events{};
    const int timeout_ms = options_.rate > 0 ? 1 : 100;
    const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout_ms);
    for (int i = 0; i < count; ++i) read(events[static_cast<std::size_t>(i)].data.u64);
  }

  void read(std::size_t index) {
    Client& client = clients_[index];
    const ssize_t count = ::recv(client.socket, buffer_.data(), buffer_.size(), 0);
    if (count <= 0) {
      if (client.busy) end(client, "closed");
      replace(client, index);
      return;
    }
    const bool keep = !options_.expect.empty();
    const auto state = client.answer.add({buffer_.data(), static_cast<std::size_t>(count)}, keep);
    if (options_.cut && client.answer.events() > 0) {
      end(client, "cut");
      replace(client, index);
    } else if (state == Answer::State::kBroken) {
      end(client, "broken");
      replace(client, index);
    } else if (state == Answer::State::kWhole) {
      const bool wrong = keep && client.answer.status() == 200 && content_of(client.answer.body()) != options_.expect;
      end(client, wrong ? "wrong" : std::to_string(client.answer.status()));
      free_.push_back(index);
    }
  }

  void end(Client& client, const std::string& how) {
    client.busy = false;
    --busy_;
    events_ += client.answer.events();
    latencies_[how].push_back(std::chrono::duration<double, std::milli>(Clock::now() - client.sent).count());
  }

  /// The connection is spent.
  void replace(Client& client, std::size_t index) {
    ::close(client.socket);
    if (options_.rate > 0 || over()) return;
    client.socket = connected(options_.port);
    epoll_event event{.events = EPOLLIN, .data = {.u64 = index}};
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, client.socket, &event);
    free_.push_back(index);
  }

  Json report(double seconds) {
    Json answers = Json::object();
    std::size_t ended = 0;
    for (auto& [how, times] : latencies_) {
      std::ranges::sort(times);
      const auto at = [&times = times](double share) {
        const auto last = static_cast<double>(times.size() - 1);
        return times[static_cast<std::size_t>(share * last)];
      };
      ended += times.size();
      answers[how] = {{"count", times.size()}, {"p50_ms", at(0.5)}, {"p99_ms", at(0.99)}, {"max_ms", times.back()}};
    }
    return {{"seconds", seconds},
            {"begun", begun_},
            {"unanswered", busy_},
            {"requests_per_second", static_cast<double>(ended) / seconds},
            {"events_per_second", static_cast<double>(events_) / seconds},
            {"answers", answers}};
  }

  const Options options_;
  const int epoll_;
  std::deque<Client> clients_;
  std::deque<std::size_t> free_;
  std::array<char, 1 << 17> buffer_{};
  std::map<std::string, std::vector<double>> latencies_;  // in ms, by status or by what went wrong
  std::int64_t begun_ = 0;
  std::int64_t busy_ = 0;
  std::uint64_t events_ = 0;
  Clock::time_point begin_;
  Clock::time_point until_;
};

Options options_of(int argc, char** argv) {
  std::map<std::string, std::string> flags{{"--port", ""},
                                           {"--path", "/v1/chat/completions"},
                                           {"--body", R"({"messages":[{"role":"user","content":"Hi"}]})"},
                                           {"--expect", ""},
                                           {"--connections", "1"},
                                           {"--requests", "0"},
                                           {"--seconds", "5"},
                                           {"--rate", "0"},
                                           {"--cut", "0"},
                                           {"--idle", "0"},
                                           {"--slow", "0"},
                                           {"--settle-ms", "0"}};
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!flags.contains(argv[i])) fail(fmt::format("there is no {}", argv[i]));
    flags[argv[i]] = argv[i + 1];
  }
  const auto number = [&](const char* name) { return std::atoi(flags[name].c_str()); };
  const std::string& body = flags["--body"];
  return {.port = static_cast<std::uint16_t>(number("--port")),
          .request = fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                                 "Content-Length: {}\r\n\r\n{}",
                                 flags["--path"], body.size(), body),
          .expect = flags["--expect"],
          .connections = number("--connections"),
          .requests = number("--requests"),
          .seconds = std::atof(flags["--seconds"].c_str()),
          .rate = std::atof(flags["--rate"].c_str()),
          .cut = number("--cut") != 0,
          .idle = number("--idle"),
          .slow = number("--slow"),
          .settle_ms = number("--settle-ms")};
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  std::printf("%s\n", Load(options_of(argc, argv)).run().dump().c_str());
  return 0;
}
