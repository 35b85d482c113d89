#include "core/check.h"

#include <cstdio>
#include <cstdlib>

namespace lanner {

void check_failed(const char* file, int line, const char* what) {
  std::fprintf(stderr, "lanner: bug: %s:%d: this should hold: %s\n", file, line, what);
  std::abort();
}

}  // namespace lanner
