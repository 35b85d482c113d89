// Products of bf16 by vdpbf16ps; see prompt.h.

#define LANNER_ISA avx512_bf16
#include "ops/cpu/simd_avx512.h"

namespace lanner::ops::cpu::avx512_bf16 {
using namespace avx512;  // NOLINT(google-build-using-namespace): the vocabulary of prompt.inl.h
}

#include "ops/cpu/prompt.inl.h"

namespace lanner::ops::cpu::avx512_bf16 {
namespace {

template <int kRows, int kTiles>
void multiply_block(const BFloat16Product& p, std::int64_t row, std::int64_t tile) {
  __m512 sums[kRows][kTiles];
  float* c = p.c + row * p.c_stride + tile * kTileColumns;
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTiles; ++t) {
      sums[r][t] = p.add ? _mm512_loadu_ps(c + r * p.c_stride + t * kTileColumns) : _mm512_setzero_ps();
    }
  }
  const std::uint16_t* a = p.a + row * p.a_stride;
  const std::uint16_t* b = p.b + tile * p.b_stride;
  for (std::int64_t k = 0; k < p.depth; k += 2) {
    __m512bh columns[kTiles];
    for (int t = 0; t < kTiles; ++t) {
      columns[t] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + t * p.b_stride + k * kTileColumns));
    }
    for (int r = 0; r < kRows; ++r) {
      std::int32_t pair;
      __builtin_memcpy(&pair, a + r * p.a_stride + k, sizeof(pair));
      const auto both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
      for (int t = 0; t < kTiles; ++t) sums[r][t] = _mm512_dpbf16_ps(sums[r][t], columns[t], both);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTiles; ++t) _mm512_storeu_ps(c + r * p.c_stride + t * kTileColumns, sums[r][t]);
  }
}

template <int kTiles>
void multiply_columns(const BFloat16Product& p, std::int64_t tile) {
  for (std::int64_t row = 0; row < p.rows; row += 4) multiply_block<4, kTiles>(p, row, tile);
}

void multiply(const BFloat16Product& p) {
  const std::int64_t tiles = p.columns / kTileColumns;
  std::int64_t tile = 0;
  for (; tile + 4 <= tiles; tile += 4) multiply_columns<4>(p, tile);
  for (; tile + 2 <= tiles; tile += 2) multiply_columns<2>(p, tile);
  if (tile < tiles) multiply_columns<1>(p, tile);
}

}  // namespace

const PromptKernels& prompt_kernels() {
  static constexpr PromptKernels kTable{.round_query = round_query,
                                        .arrange_keys = arrange_keys,
                                        .arrange_values = arrange_values,
                                        .configure = [] {},
                                        .multiply = multiply,
                                        .weigh = weigh};
  return kTable;
}

}  // namespace lanner::ops::cpu::avx512_bf16
