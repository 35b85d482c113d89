#pragma once
// Text from outside is UTF-8 before it goes further.

#include <string_view>

#include "lanner/status.h"

namespace lanner {

/// kInvalidArgument, with the place of the first bad byte, for anything else; `what` names the text in that error.
Status check_utf8(std::string_view text, std::string_view what);

}  // namespace lanner
