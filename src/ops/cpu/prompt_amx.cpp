// Products of bf16 by the processor's tiles; see prompt.h.

#define LANNER_ISA amx_bf16
#include "ops/cpu/simd_avx512.h"

namespace lanner::ops::cpu::amx_bf16 {
using namespace avx512;  // NOLINT(google-build-using-namespace): the vocabulary of prompt.inl.h
}

#include "ops/cpu/processor_tiles.inl.h"
#include "ops/cpu/prompt_tiles.inl.h"

namespace lanner::ops::cpu::amx_bf16 {

const PromptKernels& prompt_kernels() {
  static constexpr PromptKernels kTable{.round_query = round_query,
                                        .arrange_keys = arrange_keys,
                                        .arrange_values = arrange_values,
                                        .configure = configure_tiles<ProcessorTiles<true>>,
                                        .multiply = multiply_by_tiles<ProcessorTiles<true>>,
                                        .weigh = weigh};
  return kTable;
}

}  // namespace lanner::ops::cpu::amx_bf16
