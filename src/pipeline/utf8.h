#pragma once
// Whether text from outside is UTF-8.

#include <cstddef>
#include <optional>
#include <string_view>

namespace lanner {

/// The offset of the first byte that is no part of well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates).
std::optional<std::size_t> first_invalid_utf8(std::string_view text);

}  // namespace lanner
