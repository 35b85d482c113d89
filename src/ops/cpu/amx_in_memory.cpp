// Compiled for AVX-512, so that nothing here may instantiate what other files share; see kernels.inl.h.

#include "ops/cpu/amx_in_memory.h"

#define LANNER_ISA amx_in_memory
#include "ops/cpu/simd_avx512.h"

namespace lanner::ops::cpu::amx_in_memory {
using namespace avx512;  // NOLINT(google-build-using-namespace): the vocabulary of codes.inl.h
}

#include "ops/cpu/amx.inl.h"
// Behind it, whose vocabulary it uses.
#include "ops/cpu/bf16_tiles.inl.h"
#include "ops/cpu/memory_tiles.inl.h"

namespace lanner::ops::cpu::amx_in_memory {

void multiply(const WeightView& weight, std::int64_t panel, std::int64_t panels, const InputView& input,
              std::int64_t row, std::int64_t rows, float* tile) {
  multiply_tiles<MemoryTiles<false>>(weight, panel, panels, input, row, rows, tile);
}

const TileKernels& tile_kernels() {
  static constexpr TileKernels kTiles{
      .least_rows = 1,
      .takes = takes_weight,
      .configure = configure_tiles<MemoryTiles<true>>,
      .round_rows = round_rows,
      .unpack = unpack_tiles,
      .multiply = multiply_bf16_tiles<MemoryTiles<true>>,
  };
  return kTiles;
}

}  // namespace lanner::ops::cpu::amx_in_memory
