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

namespace lanner::ops::cpu::amx {
namespace {

// A tile instruction takes the same time for 1 row and for 16, so that few rows go without.
constexpr std::int64_t kLeastRows = 6;
constexpr std::int64_t kCallRows = 32;  // share an unpacked unit
constexpr std::int64_t kLeastTileRows = 17;

/// The processor's tiles. Written with asm rather than with the compiler's functions: those of g++ 12 do not say that
/// a tile load reads memory, nor that a configuration reads all of its 64 bytes, so that stores to either may be
/// left out. kWhole: all are 16 rows of 64 bytes; else those of units, as amx.inl.h has them.
template <bool kWhole>
struct ProcessorTiles {
  struct alignas(64) Configuration {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, kWhole ? 64 : 32, kWhole ? 64 : 32, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, kWhole ? 16 : 8, kWhole ? 16 : 8};
  };
  static_assert(sizeof(Configuration) == 64);

  /// Of this thread, anew for each product or operation: callbacks run on the engine's thread, and may use tiles of
  /// their own.
  LANNER_INLINE void configure() {
    static constexpr Configuration kConfiguration{};
    asm volatile("ldtilecfg %0" : : "m"(kConfiguration));
  }
  LANNER_INLINE void before_loads() { asm volatile("" : : : "memory"); }
  template <int kTile>
  LANNER_INLINE void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  LANNER_INLINE void load(const void* from, std::int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  /// sums += signed bytes of kA times unsigned ones of kB.
  template <int kSums, int kA, int kB>
  LANNER_INLINE void multiply() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }
  /// sums += pairs of bf16 of kA times those of kB.
  template <int kSums, int kA, int kB>
  LANNER_INLINE void multiply_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }
  template <int kTile>
  LANNER_INLINE void store(void* to, std::int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
  }
};

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
