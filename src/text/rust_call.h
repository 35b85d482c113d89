#pragma once
// Private to src/text: what comes over the C border, as C++ values.

#include <string>
#include <string_view>

#include "lanner/status.h"
#include "text/lanner_text.h"

namespace lanner {

inline LannerSlice to_slice(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// Copies and frees a buffer that the library handed out.
std::string take_buffer(LannerBuffer buffer);

/// The Status of a returned code; takes over `error`.
Status take_error(std::int32_t code, LannerBuffer error);

/// JSON text in the spelling of Python's json.dumps(value, ensure_ascii=False).
Result<std::string> json_as_python(std::string_view json);

}  // namespace lanner
