#pragma once
// Several servers behind one address: who is there, who gets which request, and what becomes of one that is gone.
//
//   ProxyService proxy({.routing = Routing::kMinExpectedLatency});
//   LANNER_ASSIGN_OR_RETURN(auto server, HttpServer::start({.port = 8000}, proxy));
//
// Bodies and headers pass through unchanged, keys among them, besides X-Forwarded-*; streams pass byte for byte.
// Threads: as HttpHandler; the other methods from any thread.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/http_server.h"
#include "server/json.h"
#include "server/proxy_nodes.h"
#include "server/upstreams.h"

namespace lanner::server {

struct ProxyOptions {
  Routing routing = Routing::kMinExpectedLatency;
  /// Any of them opens all but /health; empty: no key is asked for.
  std::vector<std::string> api_keys;
  /// Only requests whose Host names this machine are answered, as in ServiceOptions.
  bool check_host = false;
  /// Keeps the nodes over a restart; empty: nothing is kept.
  std::filesystem::path state_file;
  std::chrono::milliseconds health_interval{5'000};
  std::chrono::seconds forget_after{900};  // a node that has been away for so long is forgotten
  UpstreamOptions upstream;
  std::function<void(const std::string&)> log;   // a line for each exchange; may be empty
  std::function<void(const std::string&)> tell;  // what whoever runs it should know; may be empty
};

class ProxyService final : public HttpHandler {
 public:
  explicit ProxyService(ProxyOptions options);
  /// The server that calls this one must have been stopped.
  ~ProxyService() override;
  ProxyService(const ProxyService&) = delete;
  ProxyService& operator=(const ProxyService&) = delete;

  std::optional<HttpReply> screen(HttpRequest& head) override;
  Pace pace(const HttpRequest& request) const override;
  HttpReply handle(const HttpRequest& request) override;
  HttpReply refuse(int status, const std::string& message) override;
  Headers common_headers(const HttpRequest& request) const override;
  void finished(const HttpRequest& request, const HttpOutcome& outcome) override;

  std::vector<Node> nodes() const { return nodes_.nodes(); }

 private:
  HttpReply forward(const HttpRequest& request, const Json& body);
  HttpReply list_models() const;
  HttpReply show_nodes() const;
  HttpReply add_node(const Json& body, const HttpRequest& request);
  HttpReply remove_node(const Json& body);
  HttpReply terminate(const std::vector<std::string>& urls, const HttpRequest& request);

  void load_state();
  void save_state();
  void watch_nodes();
  bool wait(std::chrono::milliseconds time);
  void tell(const std::string& line) const;

  const ProxyOptions options_;
  const std::vector<std::string> key_digests_;
  ProxyNodes nodes_;
  Upstreams upstreams_;

  std::mutex state_mutex_;  // of the file
  std::mutex mutex_;
  std::condition_variable stopping_changed_;
  std::atomic<bool> stopping_ = false;
  std::thread watcher_;
};

}  // namespace lanner::server
