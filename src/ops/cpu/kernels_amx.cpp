// The CPU kernels for the instruction set "amx": those of AVX-512, with tiles for quantized weights and several rows,
// and tiles of bf16 for many rows of any weights.

#define LANNER_ISA amx
#include "ops/cpu/simd_avx512.h"

namespace lanner::ops::cpu::amx {
using namespace avx512;  // NOLINT(google-build-using-namespace): the vocabulary of codes.inl.h
}

#include "ops/cpu/amx.inl.h"
// Behind it, whose vocabulary it uses.
#include "ops/cpu/bf16_tiles.inl.h"
#include "ops/cpu/processor_tiles.inl.h"

namespace lanner::ops::cpu::amx {
namespace {

// A tile instruction takes the same time for 1 row and for 16, so that few rows go without. Of integers between 8 rows,
// of which AVX-512 is faster, and 16, of which it is slower; of bf16, 8 rows are as fast (docs/perf-log.md).
constexpr std::int64_t kLeastRows = 14;
constexpr std::int64_t kCallRows = 32;  // share an unpacked unit
constexpr std::int64_t kLeastTileRows = 10;

void multiply(const WeightView& w, std::int64_t panel, std::int64_t panels, const InputView& input, std::int64_t row,
              std::int64_t rows, float* tile) {
  if (rows >= kLeastRows && has_tiles(w)) {
    return multiply_tiles<ProcessorTiles<false>>(w, panel, panels, input, row, rows, tile);
  }
  const Kernels& plain = avx512::kernels();
  for (std::int64_t done = 0; done < rows; done += plain.tile_rows) {
    const std::int64_t here = rows - done < plain.tile_rows ? rows - done : plain.tile_rows;
    plain.multiply(w, panel, panels, input, row + done, here, tile + done * panels * kPanelRows);
  }
}

Kernels with_tiles(Kernels kernels) {
  static constexpr TileKernels kTiles{
      .least_rows = kLeastTileRows,
      .takes = takes_weight,
      .configure = configure_tiles<ProcessorTiles<true>>,
      .round_rows = round_rows,
      .unpack = unpack_tiles,
      .multiply = multiply_bf16_tiles<ProcessorTiles<true>>,
  };
  kernels.isa = CpuIsa::kAmx;
  kernels.tile_rows = kCallRows;
  kernels.block_rows = kAmxRows;
  kernels.multiply = multiply;
  kernels.tiles = &kTiles;
  return kernels;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels kTable = with_tiles(avx512::kernels());
  return kTable;
}

static_assert(kCallRows <= kMaxTileRows && avx512::kTilePanels == 2);

}  // namespace lanner::ops::cpu::amx
