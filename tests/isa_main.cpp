// The start of test programs that are run once for each body of CPU kernels, as LANNER_CPU_ISA says. A body that this
// processor lacks ends the program with 77, which ctest shows as skipped.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/cpu_info.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const char* wanted = std::getenv("LANNER_CPU_ISA");
  const std::string selected(lanner::cpu_isa_name(lanner::selected_cpu_isa()));
  if (wanted != nullptr && *wanted != '\0' && selected != wanted) {
    std::printf("%s: this processor lacks it, not run\n", wanted);
    return 77;
  }
  std::printf("kernels: %s\n", selected.c_str());
  return RUN_ALL_TESTS();
}
