#include "ops/cpu/kernels.h"

namespace lanner::ops::cpu {

const Kernels& kernels_for(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAmx: return amx::kernels();
    case CpuIsa::kAvx512: return avx512::kernels();
    case CpuIsa::kAvx2: return avx2::kernels();
    case CpuIsa::kGeneric: break;
  }
  return generic::kernels();
}

}  // namespace lanner::ops::cpu
