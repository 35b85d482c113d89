// Compiled for AVX-512, so that nothing here may instantiate what other files share; see kernels.inl.h.

#include "ops/cpu/amx_in_memory.h"

#define LANNER_ISA amx_in_memory
#include "ops/cpu/simd_avx512.h"

namespace lanner::ops::cpu::amx_in_memory {
using namespace avx512;  // NOLINT(google-build-using-namespace): the vocabulary of codes.inl.h
}

#include "ops/cpu/amx.inl.h"

namespace lanner::ops::cpu::amx_in_memory {
namespace {

/// Tiles as the manual describes them, with the sizes that ProcessorTiles configures.
struct MemoryTiles {
  struct Tile {
    std::uint8_t bytes[16][64];
  };
  static Tile& tile(int index) {
    static Tile tiles[8];
    return tiles[index];
  }
  static unsigned rows(int index) { return index < 6 ? 16U : 8U; }
  static unsigned row_bytes(int index) { return index == 4 || index == 5 ? 32U : 64U; }

  static void configure() {}
  static void before_loads() {}
  template <int kTile>
  static void zero() {
    tile(kTile) = {};
  }
  template <int kTile>
  static void load(const void* from, std::int64_t stride) {
    tile(kTile) = {};
    for (unsigned row = 0; row < rows(kTile); ++row) {
      __builtin_memcpy(tile(kTile).bytes[row], static_cast<const std::uint8_t*>(from) + row * stride, row_bytes(kTile));
    }
  }
  template <int kSums, int kA, int kB>
  static void multiply() {
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 16; ++n) {
        std::int32_t sum = 0;
        __builtin_memcpy(&sum, tile(kSums).bytes[m] + 4 * n, sizeof(sum));
        for (unsigned k = 0; k < row_bytes(kA); ++k) {
          sum += static_cast<std::int8_t>(tile(kA).bytes[m][k]) * tile(kB).bytes[k / 4][4 * n + k % 4];
        }
        __builtin_memcpy(tile(kSums).bytes[m] + 4 * n, &sum, sizeof(sum));
      }
    }
  }
  template <int kTile>
  static void store(void* to, std::int64_t stride) {
    for (unsigned row = 0; row < rows(kTile); ++row) {
      __builtin_memcpy(static_cast<std::uint8_t*>(to) + row * stride, tile(kTile).bytes[row], row_bytes(kTile));
    }
  }
};

}  // namespace

void multiply(const WeightView& weight, std::int64_t panel, std::int64_t panels, const InputView& input,
              std::int64_t row, std::int64_t rows, float* tile) {
  multiply_tiles<MemoryTiles>(weight, panel, panels, input, row, rows, tile);
}

}  // namespace lanner::ops::cpu::amx_in_memory
