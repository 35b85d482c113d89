#include "server/shut_down.h"

#include <algorithm>
#include <thread>

namespace lanner::server {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPoll(20);
constexpr std::chrono::milliseconds kLastBytes(2'000);  // for clients to take the end of their answers

}  // namespace

void shut_down(Service& service, HttpServer& server, std::chrono::milliseconds timeout,
               const std::function<bool()>& hurried) {
  service.close();
  server.drain();
  const auto until = Clock::now() + timeout;
  bool idle = false;
  bool hurry = false;
  while (!idle && !hurry && Clock::now() < until) {
    idle = service.wait_until_idle(std::min(Clock::now() + kPoll, until));
    hurry = hurried();
  }
  if (!idle) {
    service.abort_all();
    service.wait_until_idle(Clock::now() + kLastBytes);
  }
  for (const auto last = Clock::now() + kLastBytes; server.connections() > 0 && Clock::now() < last;) {
    std::this_thread::sleep_for(kPoll);
  }
  server.stop();
}

}  // namespace lanner::server
