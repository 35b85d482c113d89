// The start of test programs that are run on several devices (LANNER_TEST_DEVICE: cpu, cpu-late, cpu-tiles, cuda,
// cuda-deterministic) and, on the CPU, once for each body of kernels (LANNER_CPU_ISA). What this machine lacks ends the
// program with 77, which ctest shows as skipped.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/cpu_info.h"
#include "ops/backend.h"
#include "ops/test_device.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  constexpr int kNotRun = 77;
  if (lanner::is_cuda(lanner::test_device())) {
    const lanner::ops::CudaSupport support = lanner::ops::cuda_support();
    if (!support.problem.empty()) {
      std::printf("NOT RUN: no CUDA device to test (%s)\n", support.problem.c_str());
      return kNotRun;
    }
    std::printf("device: %s\n", support.devices.front().name.c_str());
    return RUN_ALL_TESTS();
  }
  const char* wanted = std::getenv("LANNER_CPU_ISA");
  const std::string selected(lanner::cpu_isa_name(lanner::selected_cpu_isa()));
  if (wanted != nullptr && *wanted != '\0' && selected != wanted) {
    std::printf("%s: this processor lacks it, not run\n", wanted);
    return kNotRun;
  }
  if (lanner::test_device() == lanner::TestDevice::kCpuTiles && !lanner::has_bfloat16_products()) {
    std::printf("NOT RUN: this processor lacks AVX512-BF16\n");
    return kNotRun;
  }
  std::printf("kernels: %s\n", selected.c_str());
  return RUN_ALL_TESTS();
}
