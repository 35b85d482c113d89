// What stands for the tiles of processor_tiles.inl.h where the processor has none: the same sums, computed in memory.

// No include guard: it is included once by amx_in_memory.cpp and once by prompt_in_memory.cpp.

namespace lanner::ops::cpu::LANNER_ISA {
namespace {

struct Tile {
  alignas(64) std::uint8_t bytes[16][64];
};

/// Two numbers of bf16 a lane, widened: the lower and the upper ones. Subnormal ones are zero.
__m512 lower_number(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
__m512 upper_number(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U))));
}

/// The even and the odd columns are summed apart, in ascending order, then both together, then with what was there. A
/// function of its own, which nothing can be moved out of or into: its caller has the processor take subnormal numbers
/// for zero, as the tiles do.
__attribute__((noinline)) void multiply_pairs(Tile& sums, const Tile& a, const Tile& b) {
  for (int m = 0; m < 16; ++m) {
    __m512 even = _mm512_setzero_ps();
    __m512 odd = _mm512_setzero_ps();
    for (int k = 0; k < 16; ++k) {
      std::int32_t pair = 0;
      __builtin_memcpy(&pair, a.bytes[m] + 4 * k, sizeof(pair));
      const __m512i x = _mm512_set1_epi32(pair);
      const __m512i w = _mm512_load_si512(b.bytes[k]);
      even = _mm512_fmadd_ps(lower_number(x), lower_number(w), even);
      odd = _mm512_fmadd_ps(upper_number(x), upper_number(w), odd);
    }
    _mm512_store_ps(sums.bytes[m], _mm512_add_ps(_mm512_load_ps(sums.bytes[m]), _mm512_add_ps(even, odd)));
  }
}

/// Tiles as the manual describes them, each thread's own, with the sizes that ProcessorTiles configures.
template <bool kWhole>
struct MemoryTiles {
  static Tile& tile(int index) {
    static thread_local Tile tiles[8];
    return tiles[index];
  }
  static unsigned rows(int index) { return kWhole || index < 6 ? 16U : 8U; }
  static unsigned row_bytes(int index) { return !kWhole && (index == 4 || index == 5) ? 32U : 64U; }

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
  template <int kSums, int kA, int kB>
  static void multiply_bf16() {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | _MM_FLUSH_ZERO_ON | kSubnormalsAreZero);
    multiply_pairs(tile(kSums), tile(kA), tile(kB));
    _mm_setcsr(before);
  }
  template <int kTile>
  static void store(void* to, std::int64_t stride) {
    for (unsigned row = 0; row < rows(kTile); ++row) {
      __builtin_memcpy(static_cast<std::uint8_t*>(to) + row * stride, tile(kTile).bytes[row], row_bytes(kTile));
    }
  }

 private:
  static constexpr unsigned kSubnormalsAreZero = 0x40;  // of inputs, in MXCSR
};

}  // namespace
}  // namespace lanner::ops::cpu::LANNER_ISA
