#pragma once
// http:// and https:// addresses, taken apart and checked.
//
//   LANNER_ASSIGN_OR_RETURN(const Url url, parse_url("https://hub.example/api/models/a/b?x=1"));
//   LANNER_ASSIGN_OR_RETURN(const Url next, resolve_reference(url, location_header));
//
// What parse_url() accepts holds no control character, no space, no user name and no fragment, so that its parts can go
// into a request line and a Host header as they are.

#include <cstdint>
#include <string>
#include <string_view>

#include "lanner/status.h"

namespace lanner::net {

struct Url {
  bool https = true;
  std::string host;          // lower case; an IPv6 address without its brackets
  std::uint16_t port = 0;    // never 0 after parse_url()
  std::string target = "/";  // path and query as they go into the request line

  /// "https://host", with the port where it is not the scheme's own.
  std::string origin() const;
  std::string text() const { return origin() + target; }
  /// For a Host header: without the scheme.
  std::string authority() const;
  bool same_origin(const Url& other) const { return https == other.https && host == other.host && port == other.port; }
};

/// kInvalidArgument for anything but an http or https address of at most 8 KB. A fragment is dropped.
Result<Url> parse_url(std::string_view text);

/// Where a Location header leads: an absolute address, "//host/path", "/path", "?query", or a path beside the current
/// one; "." and ".." are resolved.
Result<Url> resolve_reference(const Url& base, std::string_view reference);

/// `text` with everything but letters, digits, "-._~" and the characters of `kept` as %XX.
std::string percent_encode(std::string_view text, std::string_view kept = "");

/// The proxies of an environment: addresses as users write them ("http://host:3128", "host:3128"), empty for none.
struct ProxySettings {
  std::string http;
  std::string https;
  std::string exceptions;  // "localhost,.example.org,10.0.0.1" or "*"
};

struct Proxy {
  std::string host;
  std::uint16_t port = 0;
  std::string credentials;  // "user:password", percent-decoded; empty for none
};

/// The proxy for `url`: an empty host means none. kInvalidArgument when the setting is no address of an http proxy.
Result<Proxy> proxy_for(const Url& url, const ProxySettings& settings);

/// localhost, 127.0.0.0/8 or ::1, by its name alone: nothing is looked up.
bool is_loopback(std::string_view host);

}  // namespace lanner::net
