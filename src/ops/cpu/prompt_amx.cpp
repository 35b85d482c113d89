// Products of bf16 by the processor's tiles; see prompt.h.

#define LANNER_ISA amx_bf16
#include "ops/cpu/simd_avx512.h"

namespace lanner::ops::cpu::amx_bf16 {
using namespace avx512;  // NOLINT(google-build-using-namespace): the vocabulary of prompt.inl.h
}

#include "ops/cpu/prompt_tiles.inl.h"

namespace lanner::ops::cpu::amx_bf16 {
namespace {

/// Eight tiles of 16 rows of 64 bytes. Written with asm for the reasons that kernels_amx.cpp gives.
struct ProcessorTiles {
  struct alignas(64) Configuration {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static_assert(sizeof(Configuration) == 64);

  /// Of this thread, anew for each task: products of weights configure them for themselves.
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
  template <int kSums, int kA, int kB>
  LANNER_INLINE void multiply_bfloat16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }
  template <int kTile>
  LANNER_INLINE void store(void* to, std::int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
  }
};

}  // namespace

const PromptKernels& prompt_kernels() {
  static constexpr PromptKernels kTable{.round_query = round_query,
                                        .arrange_keys = arrange_keys,
                                        .arrange_values = arrange_values,
                                        .configure = configure_tiles<ProcessorTiles>,
                                        .multiply = multiply_by_tiles<ProcessorTiles>,
                                        .weigh = weigh};
  return kTable;
}

}  // namespace lanner::ops::cpu::amx_bf16
