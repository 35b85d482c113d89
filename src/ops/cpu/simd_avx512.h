#pragma once
// Sixteen lanes on AVX-512 F, BW, DQ, VL and VNNI: one register each. The vocabulary that kernels.inl.h is written in;
// simd_avx2.h and simd_generic.h say the same with two registers and with arrays. Included only by files that are
// compiled for this instruction set, and everything lies in that set's namespace, so that the linker cannot
// hand its code to another processor.

#include <immintrin.h>

#include <cstdint>

#include "core/cpu_info.h"

#define LANNER_INLINE static inline __attribute__((always_inline))

namespace lanner::ops::cpu::avx512 {

struct F32x16 {
  __m512 v;
};
struct I32x16 {
  __m512i v;
};
/// 64 bytes: for each of 16 rows, four consecutive columns' codes.
struct Codes {
  __m512i v;
};

inline constexpr CpuIsa kIsa = CpuIsa::kAvx512;

// How many accumulators fit the 32 registers.
inline constexpr int kTileRows = 16;     // rows of one product tile
inline constexpr int kDenseRows = 8;     // of which a dense weight takes at once
inline constexpr int kTilePanels = 2;    // panels of a tile with several rows
inline constexpr int kScoreQueries = 4;  // queries that share one load of keys or values
inline constexpr int kScoreVectors = 4;  // vectors of tokens, or of head elements, in flight a query

LANNER_INLINE F32x16 zero() { return {_mm512_setzero_ps()}; }
LANNER_INLINE F32x16 set1(float x) { return {_mm512_set1_ps(x)}; }
LANNER_INLINE F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
LANNER_INLINE void store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
LANNER_INLINE F32x16 add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
LANNER_INLINE F32x16 sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
LANNER_INLINE F32x16 mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
LANNER_INLINE F32x16 div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
LANNER_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
LANNER_INLINE F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
LANNER_INLINE F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
LANNER_INLINE F32x16 abs(F32x16 a) { return {_mm512_abs_ps(a.v)}; }
LANNER_INLINE F32x16 round(F32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// 0 where a < limit, else b.
LANNER_INLINE F32x16 zero_below(F32x16 a, float limit, F32x16 b) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, _mm512_set1_ps(limit), _CMP_NLT_UQ), b.v)};
}
/// a * 2^n for integral n with a normal result.
LANNER_INLINE F32x16 scale_exponent(F32x16 a, F32x16 n) {
  return {
      _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), _mm512_slli_epi32(_mm512_cvtps_epi32(n.v), 23)))};
}
LANNER_INLINE float reduce_add(F32x16 a) { return _mm512_reduce_add_ps(a.v); }
LANNER_INLINE float reduce_max(F32x16 a) { return _mm512_reduce_max_ps(a.v); }

LANNER_INLINE F32x16 load_half(const std::uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
LANNER_INLINE void store_half(std::uint16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
LANNER_INLINE F32x16 load_bfloat(const std::uint16_t* p) {
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16))};
}

LANNER_INLINE I32x16 set1_int(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
LANNER_INLINE I32x16 add_int(I32x16 a, I32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
LANNER_INLINE I32x16 load_int(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
/// a * 128: kLowSteps.
LANNER_INLINE I32x16 times_low_steps(I32x16 a) { return {_mm512_slli_epi32(a.v, 7)}; }
LANNER_INLINE F32x16 to_float(I32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
LANNER_INLINE std::int32_t reduce_add_int(I32x16 a) { return _mm512_reduce_add_epi32(a.v); }
/// Rounds to the nearest integer, clamps to a signed byte, stores 16 bytes and returns the values stored.
LANNER_INLINE I32x16 store_int8(std::int8_t* p, F32x16 a) {
  const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a.v));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  return {_mm512_cvtepi8_epi32(bytes)};
}

LANNER_INLINE Codes load_codes(const std::uint8_t* p) { return {_mm512_loadu_si512(p)}; }
LANNER_INLINE void store_codes(std::uint8_t* p, Codes a) { _mm512_storeu_si512(p, a.v); }
LANNER_INLINE Codes low_nibbles(Codes a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
LANNER_INLINE Codes high_nibbles(Codes a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}
/// acc + codes · x over four columns; codes are 0..15.
LANNER_INLINE I32x16 dot_nibbles(I32x16 acc, Codes codes, std::int32_t x4) {
  return {_mm512_dpbusd_epi32(acc.v, codes.v, _mm512_set1_epi32(x4))};
}
/// Bytes are stored as code + 128; what the excess adds to a dot product is taken off at its start.
LANNER_INLINE I32x16 bytes_start(std::int32_t sum_of_x) { return set1_int(-128 * sum_of_x); }
LANNER_INLINE I32x16 dot_bytes(I32x16 acc, Codes codes, std::int32_t x4) { return dot_nibbles(acc, codes, x4); }

/// 32 bytes: their low nibbles, then their high ones.
LANNER_INLINE Codes load_nibbles(const std::uint8_t* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(bytes), _mm256_srli_epi16(bytes, 4), 1);
  return {_mm512_and_si512(both, _mm512_set1_epi8(15))};
}

LANNER_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

}  // namespace lanner::ops::cpu::avx512
