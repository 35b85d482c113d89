#pragma once
// Bytes as text (RFC 4648, section 4).

#include <string>
#include <string_view>

namespace lanner::net {

/// Of less than 2 GiB.
std::string base64(std::string_view bytes);

}  // namespace lanner::net
