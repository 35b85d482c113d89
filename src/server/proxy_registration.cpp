#include "server/proxy_registration.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <utility>

#include "net/http_client.h"
#include "net/url.h"
#include "server/json.h"

namespace lanner::server {

ProxyRegistration::ProxyRegistration(ProxyRegistrationOptions options)
    : options_(std::move(options)), thread_([this] { keep_registered(); }) {}

ProxyRegistration::~ProxyRegistration() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopping_changed_.notify_all();
  thread_.join();
}

Status ProxyRegistration::post(const std::string& path, const std::string& body,
                               const std::atomic<bool>* cancelled) const {
  const auto client = net::make_http_client(
      {.connect_timeout = std::chrono::milliseconds(3'000), .head_timeout = std::chrono::milliseconds(10'000)});
  LANNER_ASSIGN_OR_RETURN(const net::HttpResponse answer,
                          net::fetch(*client,
                                     {.method = "POST",
                                      .url = options_.proxy + path,
                                      .headers = {{"Content-Type", "application/json"}},
                                      .authorization = options_.api_key.empty() ? "" : "Bearer " + options_.api_key,
                                      .body = body,
                                      .cancelled = cancelled},
                                     1 << 20));
  if (answer.head.status == 200) return {};
  return io_error(fmt::format("{}{} answers with {}", options_.proxy, path, answer.head.status));
}

void ProxyRegistration::keep_registered() {
  const Json status{{"models", Json::array({options_.model_name})}, {"role", "Hybrid"}};
  const std::string body = to_text({{"url", options_.own_url}, {"status", status}});
  bool worked = true;
  bool entered = false;
  while (true) {
    const Status added = post("/nodes/add", body, &stopping_);
    if (options_.tell && added.ok() != worked && !stopping_) {
      options_.tell(added.ok() ? fmt::format("registered at {}", options_.proxy)
                               : fmt::format("not registered at the proxy: {}", added.message()));
    }
    worked = added.ok();
    // A proxy that was not waited for may have made the entry all the same.
    entered = entered || worked || added.code() == StatusCode::kCancelled;
    std::unique_lock lock(mutex_);
    if (stopping_changed_.wait_for(lock, worked ? options_.interval : options_.retry_interval,
                                   [this] { return stopping_.load(); })) {
      break;
    }
  }
  if (entered) post("/nodes/remove", to_text({{"url", options_.own_url}}), nullptr).ok();
}

Result<std::string> own_address_towards(const std::string& proxy) {
  LANNER_ASSIGN_OR_RETURN(const net::Url url, net::parse_url(proxy));
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(url.host.c_str(), std::to_string(url.port).c_str(), &hints, &found) != 0) {
    return io_error(fmt::format("{}: the host is not known", proxy));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> guard(found, ::freeaddrinfo);
  const int descriptor = ::socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return io_error("no socket can be opened");
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  // Of datagrams nothing is sent yet: the system only chooses the way.
  const bool known = ::connect(descriptor, found->ai_addr, found->ai_addrlen) == 0 &&
                     ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &size) == 0;
  ::close(descriptor);
  std::array<char, NI_MAXHOST> text{};
  if (!known || ::getnameinfo(reinterpret_cast<const sockaddr*>(&own), size, text.data(), text.size(), nullptr, 0,
                              NI_NUMERICHOST) != 0) {
    return io_error(fmt::format("{}: there is no way to it", proxy));
  }
  const std::string address(text.data());
  return address.find(':') == std::string::npos ? address : "[" + address + "]";
}

}  // namespace lanner::server
