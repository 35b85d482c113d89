// The tiles of a processor with AMX, as amx.inl.h, bf16_tiles.inl.h and prompt_tiles.inl.h use them; memory_tiles.inl.h
// has what stands for them elsewhere.

// No include guard: it is included once by each file that compiles for AMX.

namespace lanner::ops::cpu::LANNER_ISA {
namespace {

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

}  // namespace
}  // namespace lanner::ops::cpu::LANNER_ISA
