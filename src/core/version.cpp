#include "lanner/version.h"

namespace lanner {

const char* version() { return LANNER_VERSION; }

}  // namespace lanner
