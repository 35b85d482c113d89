// Peak loops for AVX-512 with VNNI. Twelve chains cover a latency of five at two a cycle.

#include "eval/roofline_loops.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace lanner::eval {
namespace {

constexpr int kChains = 12;

float float32(std::int64_t rounds) {
  __m512 sums[kChains];  // NOLINT(modernize-avoid-c-arrays): a std::array of vectors warns about their attributes
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 factor = _mm512_set1_ps(0.999F);
  const __m512 addend = _mm512_set1_ps(0.001F);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_fmadd_ps(sums[i], factor, addend);
  }
  __m512 total = sums[0];
  for (int i = 1; i < kChains; ++i) total = _mm512_add_ps(total, sums[i]);
  return _mm512_reduce_add_ps(total);
}

std::int32_t int8(std::int64_t rounds) {
  __m512i sums[kChains];  // NOLINT(modernize-avoid-c-arrays)
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_epi32(i);
  const __m512i left = _mm512_set1_epi8(3);
  const __m512i right = _mm512_set1_epi8(-2);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], left, right);
  }
  __m512i total = sums[0];
  for (int i = 1; i < kChains; ++i) total = _mm512_xor_si512(total, sums[i]);
  return _mm512_reduce_add_epi32(total);
}

std::uint64_t read(const std::byte* data, std::int64_t bytes) {
  const std::int64_t stream = bytes / 4;
  __m512i sums[4] = {};  // NOLINT(modernize-avoid-c-arrays)
  for (std::int64_t at = 0; at < stream; at += 64) {
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) {
      const std::byte* line = data + s * stream + at;
      _mm_prefetch(reinterpret_cast<const char*>(line + 4096), _MM_HINT_T0);
      sums[s] = _mm512_add_epi64(sums[s], _mm512_loadu_si512(line));
    }
  }
  const __m512i total = _mm512_add_epi64(_mm512_add_epi64(sums[0], sums[1]), _mm512_add_epi64(sums[2], sums[3]));
  return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(total));
}

/// One stream, which the processor prefetches by itself.
std::uint64_t read_stream(const std::byte* data, std::int64_t bytes) {
  __m512i sums[4] = {};  // NOLINT(modernize-avoid-c-arrays)
  for (std::int64_t at = 0; at < bytes; at += kReadStep) {
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) sums[s] = _mm512_add_epi64(sums[s], _mm512_loadu_si512(data + at + 64 * s));
  }
  const __m512i total = _mm512_add_epi64(_mm512_add_epi64(sums[0], sums[1]), _mm512_add_epi64(sums[2], sums[3]));
  return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(total));
}

}  // namespace

const RooflineLoops& avx512_roofline_loops() {
  static constexpr RooflineLoops kLoops{.float32 = float32,
                                        .float32_ops_per_round = std::int64_t{2} * 16 * kChains,
                                        .int8 = int8,
                                        .int8_ops_per_round = std::int64_t{2} * 64 * kChains,
                                        .read = read,
                                        .read_stream = read_stream};
  return kLoops;
}

}  // namespace lanner::eval

#else

namespace lanner::eval {
const RooflineLoops& avx512_roofline_loops() { return generic_roofline_loops(); }
}  // namespace lanner::eval

#endif
