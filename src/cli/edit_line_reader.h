#pragma once
// LineReader on a terminal, by libedit.

#include <memory>

#include "cli/line_reader.h"

namespace lanner::cli {

/// Null where libedit cannot serve the terminal or the locale has no UTF-8.
std::unique_ptr<LineReader> make_edit_line_reader(Interrupts& interrupts);

}  // namespace lanner::cli
