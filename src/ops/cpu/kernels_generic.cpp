// The CPU kernels for the instruction set "generic"; see kernels.inl.h.
#define LANNER_ISA generic
#include "ops/cpu/simd_generic.h"

#include "ops/cpu/kernels.inl.h"
