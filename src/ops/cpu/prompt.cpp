#include "ops/cpu/prompt.h"

namespace lanner::ops::cpu {

namespace {

/// Whether vdpbf16ps multiplies more than fp32 does. Of the processors that have it, those of Intel take twice as long
/// for it as for an fp32 product of half as much, and have tiles if they are newer than the first.
bool products_are_fast() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return has_bfloat16_products() && __builtin_cpu_is("intel") == 0;
#else
  return false;
#endif
}

}  // namespace

const PromptKernels* prompt_kernels_for(CpuIsa isa) {
  if (isa == CpuIsa::kAmx) return &amx_bf16::prompt_kernels();
  if (isa == CpuIsa::kAvx512 && products_are_fast()) return &avx512_bf16::prompt_kernels();
  return nullptr;
}

}  // namespace lanner::ops::cpu
