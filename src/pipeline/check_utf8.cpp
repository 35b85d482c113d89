#include "pipeline/check_utf8.h"

#include <fmt/format.h>

#include "text/utf8.h"

namespace lanner {

Status check_utf8(std::string_view text, std::string_view what) {
  const std::size_t good_bytes = utf8_prefix(text);
  if (good_bytes == text.size()) return {};
  return invalid_argument(fmt::format("{} is not UTF-8: byte {} is wrong", what, good_bytes));
}

}  // namespace lanner
