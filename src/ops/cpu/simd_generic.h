#pragma once
// Sixteen lanes on any processor: plain arrays, which the compiler vectorizes as it can. See simd_avx512.h for
// what each function means.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/cpu_info.h"
#include "core/float16.h"

#define LANNER_INLINE static inline __attribute__((always_inline))

namespace lanner::ops::cpu::generic {

struct F32x16 {
  float v[16];
};
struct I32x16 {
  std::int32_t v[16];
};
struct Codes {
  std::uint8_t v[64];
};

inline constexpr CpuIsa kIsa = CpuIsa::kGeneric;

inline constexpr int kTileRows = 4;   // rows of one product tile
inline constexpr int kDenseRows = 4;  // of which a dense weight takes at once
inline constexpr int kTilePanels = 1;
inline constexpr int kScoreQueries = 1;
inline constexpr int kScoreVectors = 2;

template <typename Function>
LANNER_INLINE F32x16 lanes(Function function) {
  F32x16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = function(i);
  return r;
}

LANNER_INLINE F32x16 set1(float x) {
  return lanes([&](int) { return x; });
}
LANNER_INLINE F32x16 zero() { return set1(0.0F); }
LANNER_INLINE F32x16 load(const float* p) {
  return lanes([&](int i) { return p[i]; });
}
LANNER_INLINE void store(float* p, F32x16 a) { std::memcpy(p, a.v, sizeof(a.v)); }
LANNER_INLINE F32x16 add(F32x16 a, F32x16 b) {
  return lanes([&](int i) { return a.v[i] + b.v[i]; });
}
LANNER_INLINE F32x16 sub(F32x16 a, F32x16 b) {
  return lanes([&](int i) { return a.v[i] - b.v[i]; });
}
LANNER_INLINE F32x16 mul(F32x16 a, F32x16 b) {
  return lanes([&](int i) { return a.v[i] * b.v[i]; });
}
LANNER_INLINE F32x16 div(F32x16 a, F32x16 b) {
  return lanes([&](int i) { return a.v[i] / b.v[i]; });
}
LANNER_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return lanes([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
LANNER_INLINE F32x16 max(F32x16 a, F32x16 b) {
  return lanes([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
LANNER_INLINE F32x16 min(F32x16 a, F32x16 b) {
  return lanes([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
LANNER_INLINE F32x16 abs(F32x16 a) {
  return lanes([&](int i) { return std::fabs(a.v[i]); });
}
LANNER_INLINE F32x16 round(F32x16 a) {
  return lanes([&](int i) { return std::nearbyint(a.v[i]); });
}
LANNER_INLINE F32x16 zero_below(F32x16 a, float limit, F32x16 b) {
  return lanes([&](int i) { return a.v[i] < limit ? 0.0F : b.v[i]; });
}
LANNER_INLINE F32x16 scale_exponent(F32x16 a, F32x16 n) {
  return lanes([&](int i) {
    const float finite = n.v[i] == n.v[i] ? n.v[i] : 0.0F;
    const auto exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(finite)) << 23U;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(a.v[i]) + exponent);
  });
}
LANNER_INLINE float reduce_add(F32x16 a) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) a.v[i] += a.v[i + width];
  }
  return a.v[0];
}
LANNER_INLINE float reduce_max(F32x16 a) {
  float best = a.v[0];
  for (const float x : a.v) best = x > best ? x : best;
  return best;
}

LANNER_INLINE F32x16 load_half(const std::uint16_t* p) {
  return lanes([&](int i) { return to_float(Half{p[i]}); });
}
LANNER_INLINE void store_half(std::uint16_t* p, F32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = to_half(a.v[i]).bits;
}
LANNER_INLINE F32x16 load_bfloat(const std::uint16_t* p) {
  return lanes([&](int i) { return lanner::to_float(BFloat16{p[i]}); });
}

LANNER_INLINE I32x16 set1_int(std::int32_t x) {
  I32x16 r;
  for (std::int32_t& lane : r.v) lane = x;
  return r;
}
LANNER_INLINE I32x16 add_int(I32x16 a, I32x16 b) {
  for (int i = 0; i < 16; ++i) a.v[i] += b.v[i];
  return a;
}
LANNER_INLINE I32x16 times_low_steps(I32x16 a) {
  for (std::int32_t& lane : a.v) lane *= 128;
  return a;
}
LANNER_INLINE F32x16 to_float(I32x16 a) {
  return lanes([&](int i) { return static_cast<float>(a.v[i]); });
}
LANNER_INLINE std::int32_t reduce_add_int(I32x16 a) {
  std::int32_t sum = 0;
  for (const std::int32_t lane : a.v) sum += lane;
  return sum;
}
LANNER_INLINE I32x16 store_int8(std::int8_t* p, F32x16 a) {
  I32x16 stored;
  for (int i = 0; i < 16; ++i) {
    const float rounded = std::nearbyint(a.v[i]);
    // Written so that a NaN, which compares false, becomes -128 and not undefined behaviour.
    const float clamped = rounded > -128.0F ? (rounded < 127.0F ? rounded : 127.0F) : -128.0F;
    p[i] = static_cast<std::int8_t>(clamped);
    stored.v[i] = static_cast<std::int32_t>(clamped);
  }
  return stored;
}

LANNER_INLINE Codes load_codes(const std::uint8_t* p) {
  Codes c;
  std::memcpy(c.v, p, sizeof(c.v));
  return c;
}
LANNER_INLINE Codes low_nibbles(Codes c) {
  for (std::uint8_t& x : c.v) x = static_cast<std::uint8_t>(x & 15U);
  return c;
}
LANNER_INLINE Codes high_nibbles(Codes c) {
  for (std::uint8_t& x : c.v) x = static_cast<std::uint8_t>(x >> 4U);
  return c;
}
LANNER_INLINE I32x16 dot_nibbles(I32x16 acc, Codes codes, std::int32_t x4) {
  std::int8_t x[4];
  std::memcpy(x, &x4, sizeof(x));
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 4; ++j) acc.v[i] += codes.v[4 * i + j] * x[j];
  }
  return acc;
}
LANNER_INLINE I32x16 bytes_start(std::int32_t sum_of_x) { return set1_int(-128 * sum_of_x); }
LANNER_INLINE I32x16 dot_bytes(I32x16 acc, Codes codes, std::int32_t x4) { return dot_nibbles(acc, codes, x4); }

LANNER_INLINE Codes load_nibbles(const std::uint8_t* p) {
  Codes c;
  for (int i = 0; i < 32; ++i) {
    c.v[i] = static_cast<std::uint8_t>(p[i] & 15U);
    c.v[i + 32] = static_cast<std::uint8_t>(p[i] >> 4U);
  }
  return c;
}

LANNER_INLINE void prefetch(const void*) {}

}  // namespace lanner::ops::cpu::generic
