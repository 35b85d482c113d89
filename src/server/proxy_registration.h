#pragma once
// A server's place in the table of a proxy: taken when it starts, taken again every now and then, since a proxy may
// have started anew, and given up at the end.
//
//   ProxyRegistration registration({.proxy = "http://127.0.0.1:8000", .own_url = "http://127.0.0.1:23333", …});

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "lanner/status.h"

namespace lanner::server {

struct ProxyRegistrationOptions {
  std::string proxy;    // "http://host:port"
  std::string own_url;  // by which the proxy reaches this server
  std::string model_name;
  std::string api_key;  // for the proxy; empty: none
  std::chrono::milliseconds interval{30'000};
  std::chrono::milliseconds retry_interval{2'000};  // after a failure
  std::function<void(const std::string&)> tell;     // a line when it fails after it worked, and the reverse
};

class ProxyRegistration {
 public:
  explicit ProxyRegistration(ProxyRegistrationOptions options);
  /// Gives the place up.
  ~ProxyRegistration();
  ProxyRegistration(const ProxyRegistration&) = delete;
  ProxyRegistration& operator=(const ProxyRegistration&) = delete;

 private:
  void keep_registered();
  Status post(const std::string& path, const std::string& body, const std::atomic<bool>* cancelled) const;

  const ProxyRegistrationOptions options_;
  std::mutex mutex_;
  std::condition_variable stopping_changed_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

/// The address of this machine from which `proxy` is reached, for a server that listens on all of its addresses.
Result<std::string> own_address_towards(const std::string& proxy);

}  // namespace lanner::server
