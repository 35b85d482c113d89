#pragma once
// LANNER_CHECK(condition): ends the process with file, line and text when an invariant of our own does not hold.
// It guards against bugs only. What a user, a file or a request can cause is answered with a Status.

namespace lanner {
[[noreturn]] void check_failed(const char* file, int line, const char* what);
}  // namespace lanner

#define LANNER_CHECK(condition)                                               \
  do {                                                                        \
    if (!(condition)) ::lanner::check_failed(__FILE__, __LINE__, #condition); \
  } while (false)
