#pragma once
// Sixteen lanes on AVX2, FMA and F16C: two registers each. See simd_avx512.h for what each function means.

#include <immintrin.h>

#include <cstdint>

#include "core/cpu_info.h"

#define LANNER_INLINE static inline __attribute__((always_inline))

namespace lanner::ops::cpu::avx2 {

struct F32x16 {
  __m256 a, b;
};
struct I32x16 {
  __m256i a, b;
};
struct Codes {
  __m256i a, b;
};

inline constexpr CpuIsa kIsa = CpuIsa::kAvx2;

inline constexpr int kTileRows = 4;   // rows of one product tile
inline constexpr int kDenseRows = 4;  // of which a dense weight takes at once
inline constexpr int kTilePanels = 1;
inline constexpr int kScoreQueries = 2;
inline constexpr int kScoreVectors = 2;

LANNER_INLINE F32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
LANNER_INLINE F32x16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
LANNER_INLINE F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
LANNER_INLINE void store(float* p, F32x16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
LANNER_INLINE F32x16 add(F32x16 x, F32x16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
LANNER_INLINE F32x16 sub(F32x16 x, F32x16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
LANNER_INLINE F32x16 mul(F32x16 x, F32x16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
LANNER_INLINE F32x16 div(F32x16 x, F32x16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
LANNER_INLINE F32x16 fma(F32x16 x, F32x16 y, F32x16 z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
LANNER_INLINE F32x16 max(F32x16 x, F32x16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
LANNER_INLINE F32x16 min(F32x16 x, F32x16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
LANNER_INLINE F32x16 abs(F32x16 x) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
LANNER_INLINE F32x16 round(F32x16 x) {
  return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
LANNER_INLINE F32x16 zero_below(F32x16 x, float limit, F32x16 y) {
  const __m256 bound = _mm256_set1_ps(limit);
  return {_mm256_and_ps(_mm256_cmp_ps(x.a, bound, _CMP_NLT_UQ), y.a),
          _mm256_and_ps(_mm256_cmp_ps(x.b, bound, _CMP_NLT_UQ), y.b)};
}
LANNER_INLINE F32x16 scale_exponent(F32x16 x, F32x16 n) {
  const __m256i na = _mm256_slli_epi32(_mm256_cvtps_epi32(n.a), 23);
  const __m256i nb = _mm256_slli_epi32(_mm256_cvtps_epi32(n.b), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x.a), na)),
          _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x.b), nb))};
}
LANNER_INLINE float reduce_add(F32x16 x) {
  const __m256 s = _mm256_add_ps(x.a, x.b);
  __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  t = _mm_add_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_add_ss(t, _mm_shuffle_ps(t, t, 1)));
}
LANNER_INLINE float reduce_max(F32x16 x) {
  const __m256 s = _mm256_max_ps(x.a, x.b);
  __m128 t = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  t = _mm_max_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_max_ss(t, _mm_shuffle_ps(t, t, 1)));
}

LANNER_INLINE __m128i load_eight(const std::uint16_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
LANNER_INLINE F32x16 load_half(const std::uint16_t* p) {
  return {_mm256_cvtph_ps(load_eight(p)), _mm256_cvtph_ps(load_eight(p + 8))};
}
LANNER_INLINE void store_half(std::uint16_t* p, F32x16 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
LANNER_INLINE F32x16 load_bfloat(const std::uint16_t* p) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_eight(p)), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_eight(p + 8)), 16))};
}

LANNER_INLINE I32x16 set1_int(std::int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
LANNER_INLINE I32x16 add_int(I32x16 x, I32x16 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
LANNER_INLINE I32x16 times_low_steps(I32x16 x) { return {_mm256_slli_epi32(x.a, 7), _mm256_slli_epi32(x.b, 7)}; }
LANNER_INLINE F32x16 to_float(I32x16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
LANNER_INLINE std::int32_t reduce_add_int(I32x16 x) {
  const __m256i s = _mm256_add_epi32(x.a, x.b);
  __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(t, _mm_shuffle_epi32(t, 0xB1)));
}
LANNER_INLINE I32x16 store_int8(std::int8_t* p, F32x16 x) {
  const __m256i shorts =
      _mm256_permute4x64_epi64(_mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)), 0xD8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(shorts), _mm256_extracti128_si256(shorts, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  return {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
}

LANNER_INLINE Codes load_codes(const std::uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
LANNER_INLINE Codes low_nibbles(Codes c) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(c.a, mask), _mm256_and_si256(c.b, mask)};
}
LANNER_INLINE Codes high_nibbles(Codes c) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(_mm256_srli_epi16(c.a, 4), mask), _mm256_and_si256(_mm256_srli_epi16(c.b, 4), mask)};
}
LANNER_INLINE __m256i dot_eight(__m256i acc, __m256i unsigned_bytes, __m256i signed_bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
LANNER_INLINE I32x16 dot_nibbles(I32x16 acc, Codes codes, std::int32_t x4) {
  const __m256i x = _mm256_set1_epi32(x4);
  return {dot_eight(acc.a, codes.a, x), dot_eight(acc.b, codes.b, x)};
}
LANNER_INLINE I32x16 bytes_start(std::int32_t) { return set1_int(0); }
/// Bytes are stored as code + 128. maddubs would overflow its 16 bits on them: the sign moves to x instead, and
/// |code| <= 128 times |x| <= 127, twice, fits.
LANNER_INLINE __m256i dot_signed(__m256i acc, __m256i excess, __m256i x) {
  const __m256i code = _mm256_xor_si256(excess, _mm256_set1_epi8(static_cast<char>(0x80)));
  return dot_eight(acc, _mm256_abs_epi8(code), _mm256_sign_epi8(x, code));
}
LANNER_INLINE I32x16 dot_bytes(I32x16 acc, Codes codes, std::int32_t x4) {
  const __m256i x = _mm256_set1_epi32(x4);
  return {dot_signed(acc.a, codes.a, x), dot_signed(acc.b, codes.b, x)};
}

LANNER_INLINE Codes load_nibbles(const std::uint8_t* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask)};
}

LANNER_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

}  // namespace lanner::ops::cpu::avx2
