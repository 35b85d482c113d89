// The CPU kernels for the instruction set "avx2"; see kernels.inl.h.
#define LANNER_ISA avx2
#include "ops/cpu/simd_avx2.h"

#include "ops/cpu/kernels.inl.h"
