#include "net/retries.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

namespace lanner::net {
namespace {

constexpr auto kTick = std::chrono::milliseconds(50);

bool is_set(const std::atomic<bool>* flag) { return flag != nullptr && flag->load(std::memory_order_relaxed); }

}  // namespace

Status Retries::wait_or_fail(const Status& failure, std::optional<std::chrono::seconds> asked) {
  if (failure.code() != StatusCode::kIo || used_ >= policy_.retries) return failure;
  if (asked && *asked > policy_.longest_retry_after) {
    return io_error(fmt::format("{}; the server asks to come back in {} s", failure.message(), asked->count()));
  }
  std::chrono::milliseconds delay = policy_.first_delay * (std::int64_t{1} << std::min(used_, 20));
  delay = std::min(delay, policy_.longest_delay);
  if (asked) delay = std::max<std::chrono::milliseconds>(delay, *asked);
  ++used_;
  if (policy_.note) {
    policy_.note(
        fmt::format("{}; trying again in {:.1f} s", failure.message(), static_cast<double>(delay.count()) / 1000));
  }
  const auto until = std::chrono::steady_clock::now() + delay;
  while (std::chrono::steady_clock::now() < until) {
    if (is_set(policy_.cancelled)) return {StatusCode::kCancelled, "stopped on request"};
    std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(kTick, until - std::chrono::steady_clock::now()));
  }
  return {};
}

bool is_passing_failure(int status) { return status == 408 || status == 429 || (status >= 500 && status != 501); }

Result<HttpResponse> fetch_patiently(HttpClient& client, const HttpRequest& request, std::int64_t max_body_bytes,
                                     const RetryPolicy& policy) {
  Retries retries(policy);
  while (true) {
    Result<HttpResponse> answer = fetch(client, request, max_body_bytes);
    Status failure = answer.status();
    std::optional<std::chrono::seconds> asked;
    if (answer.ok()) {
      if (!is_passing_failure(answer->head.status)) return answer;
      failure = io_error(
          fmt::format("{}: status {}", answer->head.url.substr(0, answer->head.url.find('?')), answer->head.status));
      asked = retry_after(answer->head.header("retry-after"), std::chrono::system_clock::now());
    }
    const Status verdict = retries.wait_or_fail(failure, asked);
    if (verdict.ok()) continue;
    if (answer.ok() && verdict.code() != StatusCode::kCancelled) return answer;
    return verdict;
  }
}

}  // namespace lanner::net
