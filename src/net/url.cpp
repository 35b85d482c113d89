#include "net/url.h"

#include "core/ascii.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

namespace lanner::net {
namespace {

constexpr std::size_t kMaxUrlBytes = 8192;
constexpr std::size_t kMaxHostBytes = 253;  // of a DNS name

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// Shows neither a password nor a query, which may hold a signature.
Status no_url(std::string_view text, std::string_view why) {
  text = text.substr(0, text.find('?'));
  if (const std::size_t at = text.rfind('@'); at != std::string_view::npos) text.remove_prefix(at + 1);
  std::string shown;
  for (const char c : text.substr(0, 100)) shown += c < ' ' || c > '~' ? '?' : c;
  return invalid_argument(fmt::format("'{}' is no address that can be fetched: {}", shown, why));
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) return std::nullopt;
  return port;
}

bool is_host_name(std::string_view host) {
  return !host.empty() && host.size() <= kMaxHostBytes && std::ranges::all_of(host, [](char c) {
    return is_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_';
  });
}

bool is_ipv6(std::string_view host) {
  return host.size() >= 2 && host.size() <= 45 && host.find(':') != std::string_view::npos &&
         std::ranges::all_of(host, [](char c) {
           return is_digit(c) || (lower_case(c) >= 'a' && lower_case(c) <= 'f') || c == ':' || c == '.';
         });
}

/// Fills host and port from "host", "host:port", "[::1]" or "[::1]:port".
Status parse_authority(std::string_view authority, std::string_view text, Url& url) {
  if (authority.find('@') != std::string_view::npos) return no_url(text, "it holds a user name");
  std::string_view port;
  if (authority.starts_with('[')) {
    const std::size_t end = authority.find(']');
    if (end == std::string_view::npos || !is_ipv6(authority.substr(1, end - 1))) return no_url(text, "its host");
    url.host = lower_case(authority.substr(1, end - 1));
    const std::string_view rest = authority.substr(end + 1);
    if (!rest.empty() && !rest.starts_with(':')) return no_url(text, "its host");
    if (!rest.empty()) port = rest.substr(1);
  } else {
    const std::size_t colon = authority.find(':');
    url.host = lower_case(authority.substr(0, colon));
    if (!is_host_name(url.host)) return no_url(text, "its host");
    if (colon != std::string_view::npos) port = authority.substr(colon + 1);
  }
  url.port = url.https ? 443 : 80;
  if (port.empty()) return {};
  const std::optional<std::uint16_t> number = parse_port(port);
  if (!number) return no_url(text, "its port");
  url.port = *number;
  return {};
}

/// "/a/./b/../c" as "/a/c".
std::string without_dots(std::string_view path) {
  std::vector<std::string_view> parts;
  bool folder = false;
  std::size_t begin = 1;
  while (begin <= path.size()) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    folder = part.empty() || part == "." || part == "..";
    if (part == "..") {
      if (!parts.empty()) parts.pop_back();
    } else if (part != "." && (!part.empty() || end != path.size())) {
      parts.push_back(part);
    }
    begin = end + 1;
  }
  std::string result;
  for (const std::string_view part : parts) result.append("/").append(part);
  if (folder || result.empty()) result += '/';
  return result;
}

std::string percent_decoded(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16).ptr == text.data() + i + 3) {
      result += static_cast<char>(value);
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

/// Whether NO_PROXY's list names the host: itself or a domain above it.
bool is_exception(std::string_view host, std::string_view list) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    std::string name = lower_case(list.substr(0, comma));
    std::erase(name, ' ');
    list.remove_prefix(std::min(comma + 1, list.size()));
    if (name == "*") return true;
    if (name.starts_with("*.")) name.erase(0, 1);
    if (name.empty()) continue;
    if (host == name || (name.front() == '.' && host == std::string_view(name).substr(1))) return true;
    const std::string domain = name.front() == '.' ? name : fmt::format(".{}", name);
    if (host.ends_with(domain)) return true;
  }
  return false;
}

}  // namespace

std::string Url::authority() const {
  std::string text = host.find(':') == std::string::npos ? host : fmt::format("[{}]", host);
  if (port != (https ? 443 : 80)) text += fmt::format(":{}", port);
  return text;
}

std::string Url::origin() const { return (https ? "https://" : "http://") + authority(); }

Result<Url> parse_url(std::string_view text) {
  if (text.size() > kMaxUrlBytes) return no_url(text, "it is too long");
  if (std::ranges::any_of(text, [](char c) { return c <= ' ' || c > '~'; })) {
    return no_url(text, "it holds a space or a control character");
  }
  Url url;
  const std::string scheme = lower_case(text.substr(0, 8));
  if (scheme.starts_with("https://")) {
    url.https = true;
  } else if (scheme.starts_with("http://")) {
    url.https = false;
  } else {
    return no_url(text, "it begins with neither https:// nor http://");
  }
  std::string_view rest = text.substr(url.https ? 8 : 7);
  rest = rest.substr(0, rest.find('#'));
  const std::size_t end = std::min(rest.find_first_of("/?"), rest.size());
  LANNER_RETURN_IF_ERROR(parse_authority(rest.substr(0, end), text, url));
  url.target = rest.substr(end);
  if (!url.target.starts_with('/')) url.target.insert(0, 1, '/');
  return url;
}

Result<Url> resolve_reference(const Url& base, std::string_view reference) {
  const std::string scheme = lower_case(reference.substr(0, 8));
  if (scheme.starts_with("https://") || scheme.starts_with("http://")) return parse_url(reference);
  if (reference.starts_with("//")) return parse_url((base.https ? "https:" : "http:") + std::string(reference));
  const std::size_t delimiter = reference.find_first_of(":/?#");
  if (delimiter != std::string_view::npos && reference[delimiter] == ':') {
    return no_url(reference, "it begins with neither https:// nor http://");
  }
  const std::string base_path = base.target.substr(0, base.target.find('?'));
  std::string target;
  if (reference.empty() || reference.starts_with('#')) {
    target = base.target;
  } else if (reference.starts_with('/')) {
    target = reference;
  } else if (reference.starts_with('?')) {
    target = base_path + std::string(reference);
  } else {
    target = base_path.substr(0, base_path.rfind('/') + 1) + std::string(reference);
  }
  const std::size_t query = std::min(target.find_first_of("?#"), target.size());
  return parse_url(base.origin() + without_dots(std::string_view(target).substr(0, query)) + target.substr(query));
}

std::string percent_encode(std::string_view text, std::string_view kept) {
  constexpr std::string_view kUnreserved = "-._~";
  std::string result;
  for (const char c : text) {
    if (is_letter(c) || is_digit(c) || kUnreserved.find(c) != std::string_view::npos ||
        kept.find(c) != std::string_view::npos) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return result;
}

Result<Proxy> proxy_for(const Url& url, const ProxySettings& settings) {
  std::string_view setting = url.https ? settings.https : settings.http;
  // A proxy cannot reach what "this machine" means here.
  if (setting.empty() || is_loopback(url.host) || is_exception(url.host, settings.exceptions)) return Proxy{};
  const std::string scheme = lower_case(setting.substr(0, setting.find("://")));
  if (setting.find("://") != std::string_view::npos) {
    if (scheme != "http") {
      return invalid_argument(
          fmt::format("the proxy setting begins with {}://; only http:// proxies can be used", scheme));
    }
    setting.remove_prefix(7);
  }
  Proxy proxy;
  setting = setting.substr(0, setting.find('/'));
  const std::size_t at = setting.rfind('@');
  if (at != std::string_view::npos) {
    proxy.credentials = percent_decoded(setting.substr(0, at));
    setting.remove_prefix(at + 1);
  }
  const Result<Url> address = parse_url("http://" + std::string(setting));
  if (!address.ok()) return with_context(address.status(), "the proxy setting");
  proxy.host = address->host;
  proxy.port = address->port;
  return proxy;
}

bool is_loopback(std::string_view host) {
  if (host == "localhost" || host == "::1" || host.ends_with(".localhost")) return true;
  return host.starts_with("127.") && std::ranges::all_of(host, [](char c) { return is_digit(c) || c == '.'; });
}

}  // namespace lanner::net
