#pragma once
// When to try again, and when to give up.
//
//   Retries retries(policy);
//   for (;;) {
//     …one attempt…
//     if (succeeded) break;
//     LANNER_RETURN_IF_ERROR(retries.wait_or_fail(status, retry_after));
//   }

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "lanner/status.h"
#include "net/http_client.h"

namespace lanner::net {

struct RetryPolicy {
  int retries = 5;
  std::chrono::milliseconds first_delay{1'000};  // doubles each time, up to the next
  std::chrono::milliseconds longest_delay{30'000};
  std::chrono::seconds longest_retry_after{120};  // a server that asks for more is not waited for
  const std::atomic<bool>* cancelled = nullptr;
  std::function<void(std::string_view)> note;  // told of each wait; may be empty
};

class Retries {
 public:
  explicit Retries(RetryPolicy policy) : policy_(std::move(policy)) {}

  /// Waits before the next attempt and returns ok; or returns what to give up with: `failure` itself when attempts are
  /// used up or when it is not kIo, kCancelled when that happened.
  Status wait_or_fail(const Status& failure, std::optional<std::chrono::seconds> asked = std::nullopt);
  /// After progress: all attempts are there again.
  void reset() { used_ = 0; }

 private:
  RetryPolicy policy_;
  int used_ = 0;
};

/// 408, 429 and 5xx but 501: the same request may succeed later.
bool is_passing_failure(int status);

/// fetch() that tries again where that may help. An answer that is still a passing failure at the end is returned.
Result<HttpResponse> fetch_patiently(HttpClient& client, const HttpRequest& request, std::int64_t max_body_bytes,
                                     const RetryPolicy& policy);

}  // namespace lanner::net
