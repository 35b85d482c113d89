#pragma once
// A proxy's requests to the servers behind it: the answer passes through as it comes, byte for byte.
//
//   Upstreams upstreams({});
//   HttpReply reply = upstreams.forward({.method = "POST", …, .next = …, .ended = …});   // reply.late
//
// As long as no byte of an answer has been handed on, a node that cannot be reached, breaks off, or says that it takes
// nothing now (429, 503) makes way for the next one. A stream that breaks off later ends with an event that says so;
// another answer ends its connection.
//
// All of them are coroutines on one thread. Threads: forward() from any; its functions are called on that thread.

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/http.h"
#include "server/proxy_nodes.h"

namespace lanner::server {

struct UpstreamOptions {
  std::chrono::milliseconds connect_timeout{5'000};
  /// From the end of the request to the head of its answer, and then without a byte of it; zero: no limit.
  std::chrono::milliseconds answer_timeout{0};
};

struct UpstreamPlan {
  std::string method;
  std::string target;  // path and query
  Headers headers;     // as they are sent on
  std::string body;
  /// The node that is asked next, "http://host:port"; nothing: there is none.
  std::function<std::optional<std::string>()> next;
  /// Whether next() would say one.
  std::function<bool()> has_next;
  /// What became of the request at this node.
  std::function<void(const std::string& node, Outcome outcome)> ended;
  HttpReply unreachable;  // where no node answers
  HttpReply too_late;     // where one takes longer than answer_timeout
};

/// Whether a header of this name, in small letters, is about one connection alone or written by whoever sends a
/// message, so that a proxy passes on neither a request's nor an answer's.
bool is_written_anew(std::string_view name);

class Upstreams {
 public:
  explicit Upstreams(UpstreamOptions options);
  /// Breaks off what is under way.
  ~Upstreams();
  Upstreams(const Upstreams&) = delete;
  Upstreams& operator=(const Upstreams&) = delete;

  HttpReply forward(UpstreamPlan plan);

 private:
  class Thread;
  std::unique_ptr<Thread> thread_;
};

}  // namespace lanner::server
