// The CPU kernels for the instruction set "avx512"; see kernels.inl.h.
#define LANNER_ISA avx512
#include "ops/cpu/simd_avx512.h"

#include "ops/cpu/kernels.inl.h"
