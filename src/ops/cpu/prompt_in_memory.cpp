// Compiled for AVX-512 with BF16, so that nothing here may instantiate what other files share; see kernels.inl.h.

#include "ops/cpu/prompt_in_memory.h"

#define LANNER_ISA prompt_in_memory
#include "ops/cpu/simd_avx512.h"

namespace lanner::ops::cpu::prompt_in_memory {
using namespace avx512;  // NOLINT(google-build-using-namespace): the vocabulary of prompt.inl.h
}

#include "ops/cpu/memory_tiles.inl.h"
#include "ops/cpu/prompt_tiles.inl.h"

namespace lanner::ops::cpu::prompt_in_memory {

const PromptKernels& prompt_kernels() {
  static constexpr PromptKernels kTable{.round_query = round_query,
                                        .arrange_keys = arrange_keys,
                                        .arrange_values = arrange_values,
                                        .configure = configure_tiles<MemoryTiles<true>>,
                                        .multiply = multiply_by_tiles<MemoryTiles<true>>,
                                        .weigh = weigh};
  return kTable;
}

}  // namespace lanner::ops::cpu::prompt_in_memory
