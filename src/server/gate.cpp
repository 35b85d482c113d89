#include "server/gate.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "net/digest.h"
#include "net/url.h"
#include "server/json.h"

namespace lanner::server {
namespace {

constexpr std::size_t kMaxIdBytes = 128;

/// In a time that does not depend on where they differ.
bool same(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned>(static_cast<unsigned char>(b[i]));
  }
  return difference == 0;
}

}  // namespace

std::vector<std::string> key_digests(const std::vector<std::string>& keys) {
  std::vector<std::string> list;
  list.reserve(keys.size());
  for (const std::string& key : keys) list.push_back(net::sha256_hex(key));
  return list;
}

bool has_key(const HttpRequest& head, const std::vector<std::string>& digests) {
  constexpr std::string_view kBearer = "Bearer ";
  std::string_view given = head.header("authorization");
  if (given.starts_with(kBearer)) {
    given.remove_prefix(kBearer.size());
  } else {
    given = head.header("x-api-key");
  }
  const std::string digest = net::sha256_hex(given);
  bool any = false;
  for (const std::string& key : digests) any = same(key, digest) || any;  // all of them, whichever it is
  return any;
}

bool names_this_machine(const HttpRequest& head) {
  std::string_view host = head.header("host");
  if (host.starts_with('[')) {
    host = host.substr(1, host.find(']') - 1);
  } else {
    host = host.substr(0, host.find(':'));
  }
  return net::is_loopback(host);
}

bool is_request_id(std::string_view text) {
  const auto is_plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.';
  };
  return !text.empty() && text.size() <= kMaxIdBytes && std::ranges::all_of(text, is_plain);
}

std::string access_line(const HttpRequest& request, const HttpOutcome& outcome) {
  const auto now = std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
  const Json line{
      {"time", fmt::format("{:%Y-%m-%dT%H:%M:%S}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(now)))},
      {"id", request.id},
      {"client", request.peer},
      {"method", request.method},
      {"path", request.path},
      {"status", outcome.status},
      {"bytes", outcome.body_bytes},
      {"ms", static_cast<double>(outcome.time.count()) / 1000.0},
      {"client_left", outcome.client_left}};
  return to_text(line);
}

}  // namespace lanner::server
