// Peak loops for AVX2 with FMA. Twelve chains in the sixteen registers cover a latency of four or five at two a cycle.

#include "eval/roofline_loops.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace lanner::eval {
namespace {

constexpr int kChains = 12;

float float32(std::int64_t rounds) {
  __m256 sums[kChains];  // NOLINT(modernize-avoid-c-arrays): a std::array of vectors warns about their attributes
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 factor = _mm256_set1_ps(0.999F);
  const __m256 addend = _mm256_set1_ps(0.001F);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(sums[i], factor, addend);
  }
  __m256 total = sums[0];
  for (int i = 1; i < kChains; ++i) total = _mm256_add_ps(total, sums[i]);
  return _mm256_cvtss_f32(total);
}

// Without VNNI a dot product is three instructions: bytes to int16 pairs, pairs to int32, add.
std::int32_t int8(std::int64_t rounds) {
  __m256i sums[kChains];  // NOLINT(modernize-avoid-c-arrays)
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_epi32(i);
  __m256i left = _mm256_set1_epi8(3);
  const __m256i right = _mm256_set1_epi8(-2);
  const __m256i ones = _mm256_set1_epi16(1);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      asm volatile("" : "+x"(left));  // may have changed: multiply again
      sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(_mm256_maddubs_epi16(left, right), ones));
    }
  }
  __m256i total = sums[0];
  for (int i = 1; i < kChains; ++i) total = _mm256_xor_si256(total, sums[i]);
  return _mm256_extract_epi32(total, 0);
}

std::uint64_t read(const std::byte* data, std::int64_t bytes) {
  const std::int64_t stream = bytes / 4;
  __m256i sums[4] = {};  // NOLINT(modernize-avoid-c-arrays)
  for (std::int64_t at = 0; at < stream; at += 64) {
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) {
      const std::byte* line = data + s * stream + at;
      _mm_prefetch(reinterpret_cast<const char*>(line + 4096), _MM_HINT_T0);
      sums[s] = _mm256_add_epi64(sums[s], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line)));
      sums[s] = _mm256_add_epi64(sums[s], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + 32)));
    }
  }
  const __m256i total = _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
  return static_cast<std::uint64_t>(_mm256_extract_epi64(total, 0) + _mm256_extract_epi64(total, 1) +
                                    _mm256_extract_epi64(total, 2) + _mm256_extract_epi64(total, 3));
}

/// One stream, which the processor prefetches by itself.
std::uint64_t read_stream(const std::byte* data, std::int64_t bytes) {
  __m256i sums[8] = {};  // NOLINT(modernize-avoid-c-arrays)
  for (std::int64_t at = 0; at < bytes; at += kReadStep) {
#pragma GCC unroll 8
    for (int s = 0; s < 8; ++s) {
      const auto* from = reinterpret_cast<const __m256i*>(data + at + 32 * s);
      sums[s] = _mm256_add_epi64(sums[s], _mm256_loadu_si256(from));
    }
  }
  for (int s = 1; s < 8; ++s) sums[0] = _mm256_add_epi64(sums[0], sums[s]);
  return static_cast<std::uint64_t>(_mm256_extract_epi64(sums[0], 0) + _mm256_extract_epi64(sums[0], 1) +
                                    _mm256_extract_epi64(sums[0], 2) + _mm256_extract_epi64(sums[0], 3));
}

}  // namespace

const RooflineLoops& avx2_roofline_loops() {
  static constexpr RooflineLoops kLoops{.float32 = float32,
                                        .float32_ops_per_round = std::int64_t{2} * 8 * kChains,
                                        .int8 = int8,
                                        .int8_ops_per_round = std::int64_t{2} * 32 * kChains,
                                        .read = read,
                                        .read_stream = read_stream};
  return kLoops;
}

}  // namespace lanner::eval

#else

namespace lanner::eval {
const RooflineLoops& avx2_roofline_loops() { return generic_roofline_loops(); }
}  // namespace lanner::eval

#endif
