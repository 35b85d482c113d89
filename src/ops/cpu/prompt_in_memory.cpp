// Compiled for AVX-512 with BF16, so that nothing here may instantiate what other files share; see kernels.inl.h.

#include "ops/cpu/prompt_in_memory.h"

#define LANNER_ISA prompt_in_memory
#include "ops/cpu/simd_avx512.h"

namespace lanner::ops::cpu::prompt_in_memory {
using namespace avx512;  // NOLINT(google-build-using-namespace): the vocabulary of prompt.inl.h
}

#include "ops/cpu/prompt_tiles.inl.h"

namespace lanner::ops::cpu::prompt_in_memory {
namespace {

/// Tiles as the manual describes them: 16 rows of 64 bytes each.
struct MemoryTiles {
  struct Tile {
    std::uint8_t bytes[16][64];
  };
  static Tile& tile(int index) {
    static Tile tiles[8];
    return tiles[index];
  }

  static void configure() {}
  static void before_loads() {}
  template <int kTile>
  static void zero() {
    tile(kTile) = {};
  }
  template <int kTile>
  static void load(const void* from, std::int64_t stride) {
    for (int row = 0; row < 16; ++row) {
      __builtin_memcpy(tile(kTile).bytes[row], static_cast<const std::uint8_t*>(from) + row * stride, 64);
    }
  }
  static float widened(const std::uint8_t* bytes) {
    std::uint16_t half;
    __builtin_memcpy(&half, bytes, sizeof(half));
    const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16U;
    float value;
    __builtin_memcpy(&value, &bits, sizeof(value));
    return value;
  }
  /// sums += pairs of kA's rows times pairs of kB's columns; the first of all pairs and the second are summed apart.
  template <int kSums, int kA, int kB>
  static void multiply_bfloat16() {
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 16; ++n) {
        float first = 0;
        float second = 0;
        for (int k = 0; k < 16; ++k) {
          first += widened(tile(kA).bytes[m] + 4 * k) * widened(tile(kB).bytes[k] + 4 * n);
          second += widened(tile(kA).bytes[m] + 4 * k + 2) * widened(tile(kB).bytes[k] + 4 * n + 2);
        }
        float sum = 0;
        __builtin_memcpy(&sum, tile(kSums).bytes[m] + 4 * n, sizeof(sum));
        sum += first + second;
        __builtin_memcpy(tile(kSums).bytes[m] + 4 * n, &sum, sizeof(sum));
      }
    }
  }
  template <int kTile>
  static void store(void* to, std::int64_t stride) {
    for (int row = 0; row < 16; ++row) {
      __builtin_memcpy(static_cast<std::uint8_t*>(to) + row * stride, tile(kTile).bytes[row], 64);
    }
  }
};

}  // namespace

const PromptKernels& prompt_kernels() {
  static constexpr PromptKernels kTable{.round_query = round_query,
                                        .arrange_keys = arrange_keys,
                                        .arrange_values = arrange_values,
                                        .configure = configure_tiles<MemoryTiles>,
                                        .multiply = multiply_by_tiles<MemoryTiles>,
                                        .weigh = weigh};
  return kTable;
}

}  // namespace lanner::ops::cpu::prompt_in_memory
