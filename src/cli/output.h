#pragma once
// Bytes to stdout and stderr, unbuffered, with failures that are seen.

#include <string>
#include <string_view>

#include "lanner/status.h"

namespace lanner::cli {

/// kCancelled when nobody reads stdout any more (the program should then end quietly), kIo for other failures.
Status write_stdout(std::string_view text);
/// A failure to write to stderr has nowhere to be told.
void write_stderr(std::string_view text);

bool stdin_is_terminal();
bool stdout_is_terminal();
bool stderr_is_terminal();

/// Text from a model or a file without the control characters that could steer a terminal; newline and tab stay.
std::string printable(std::string_view text);

/// Exit code after a failed write_stdout(): 0 when the reader went away, else 1 after the error line.
int report_write(const Status& status);

/// 98.3 MB, 1.2 GB
std::string format_bytes(double bytes);

}  // namespace lanner::cli
