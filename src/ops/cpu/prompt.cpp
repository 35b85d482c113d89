#include "ops/cpu/prompt.h"

namespace lanner::ops::cpu {

const PromptKernels* prompt_kernels_for(CpuIsa isa) {
  if (isa == CpuIsa::kAmx) return &amx_bf16::prompt_kernels();
  if (isa == CpuIsa::kAvx512 && has_bfloat16_products()) return &avx512_bf16::prompt_kernels();
  return nullptr;
}

}  // namespace lanner::ops::cpu
