// What is around the products of prompt.h: one source for vdpbf16ps and for tiles. Compiled for AVX-512 with BF16, so
// that nothing here may instantiate what other files share; see kernels.inl.h. The including file has defined
// LANNER_ISA and brought the vocabulary of simd_avx512.h into it.

// No include guard: it is included once by each of those that compile it.

#include "ops/cpu/prompt.h"

namespace lanner::ops::cpu::LANNER_ISA {

inline constexpr std::int64_t kTileColumns = 16;  // of a product's right side

LANNER_INLINE void store_bits(std::uint16_t* p, __m512i bits) { _mm512_storeu_si512(p, bits); }

/// Elements of two neighbours in depth, as a tile has them: of each column its pair.
struct PairsF16 {
  LANNER_INLINE __m512i pairs(const std::uint16_t* even, const std::uint16_t* odd) {
    const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load_half(odd).v, load_half(even).v));
    const __m512i in_turn = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                             21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(in_turn, both);
  }
};
struct PairsBF16 {
  LANNER_INLINE __m512i pairs(const std::uint16_t* even, const std::uint16_t* odd) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(even)));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(odd)));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
  }
};

static void round_query(const float* values, float scale, std::int64_t n, std::uint16_t* out) {
  for (std::int64_t i = 0; i < n; i += 16) {
    const __m256bh rounded = _mm512_cvtneps_pbh(mul(load(values + i), set1(scale)).v);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), reinterpret_cast<__m256i>(rounded));
  }
  if (n % kPromptDepth != 0) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + n), _mm256_setzero_si256());
}

template <typename Pairs>
static void arrange_keys_as(const std::byte* const* heads, std::int64_t tokens, std::int64_t head_dim,
                            std::uint16_t* out) {
  const std::int64_t depth = prompt_depth(head_dim);
  const std::int64_t padded = prompt_depth(tokens);  // within a block: it has 64
  for (std::int64_t t = 0; t < padded; t += kTileColumns) {
    const auto* keys = reinterpret_cast<const std::uint16_t*>(heads[t / kKvBlockTokens]) + t % kKvBlockTokens;
    std::uint16_t* tile = out + t * depth;
    for (std::int64_t d = 0; d < head_dim; d += 2) {
      const std::uint16_t* even = keys + d * kKvBlockTokens;
      store_bits(tile + d * kTileColumns, Pairs::pairs(even, even + kKvBlockTokens));
    }
    for (std::int64_t d = head_dim; d < depth; d += 2) store_bits(tile + d * kTileColumns, _mm512_setzero_si512());
  }
}

static void arrange_keys(DType dtype, const std::byte* const* heads, std::int64_t tokens, std::int64_t head_dim,
                         std::uint16_t* out) {
  if (dtype == DType::kF16) return arrange_keys_as<PairsF16>(heads, tokens, head_dim, out);
  return arrange_keys_as<PairsBF16>(heads, tokens, head_dim, out);
}

template <typename Pairs>
static void arrange_values_as(const std::byte* const* heads, std::int64_t tokens, std::int64_t head_dim,
                              std::uint16_t* out) {
  static constexpr std::uint16_t kNothing[kTileColumns] = {};
  const std::int64_t padded = prompt_depth(tokens);
  for (std::int64_t t = 0; t < padded; t += 2) {
    const auto* values = reinterpret_cast<const std::uint16_t*>(heads[t / kKvBlockTokens]) +
                         (kKvBlockTokens + t % kKvBlockTokens) * head_dim;
    for (std::int64_t d = 0; d < head_dim; d += kTileColumns) {
      const std::uint16_t* even = t < tokens ? values + d : kNothing;
      const std::uint16_t* odd = t + 1 < tokens ? values + head_dim + d : kNothing;
      store_bits(out + (d / kTileColumns * kChunkTokens + t) * kTileColumns, Pairs::pairs(even, odd));
    }
  }
}

static void arrange_values(DType dtype, const std::byte* const* heads, std::int64_t tokens, std::int64_t head_dim,
                           std::uint16_t* out) {
  if (dtype == DType::kF16) return arrange_values_as<PairsF16>(heads, tokens, head_dim, out);
  return arrange_values_as<PairsBF16>(heads, tokens, head_dim, out);
}

/// e^x for x <= 0 to 3e-6 of it, a hundredth of what rounding to bf16 takes; 0 from -104 on. A NaN stays one.
LANNER_INLINE __m512 weight_of(__m512 x) {
  const __m512 exponent = _mm512_max_ps(_mm512_set1_ps(-160.0F), _mm512_mul_ps(x, _mm512_set1_ps(1.44269504F)));
  const __m512 n = _mm512_roundscale_ps(exponent, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(exponent, n);
  __m512 p = _mm512_set1_ps(9.570101276040077e-3F);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.591785907745361e-2F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.40247443318367e-1F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931217908859253e-1F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.999992847442627e-1F));
  return _mm512_scalef_ps(p, n);
}

/// Which of the 16 tokens from t on lie in [first, valid).
LANNER_INLINE __mmask16 seen(std::int64_t t, std::int64_t first, std::int64_t valid) {
  const std::int64_t skipped = first - t < 0 ? 0 : first - t > 16 ? 16 : first - t;
  const std::int64_t end = valid - t < 0 ? 0 : valid - t > 16 ? 16 : valid - t;
  return static_cast<__mmask16>(((1U << static_cast<unsigned>(end)) - 1U) &
                                ~((1U << static_cast<unsigned>(skipped)) - 1U));
}

static void weigh(const float* scores, std::int64_t first, std::int64_t valid, std::int64_t tokens,
                  std::int64_t head_dim, PromptState* state, std::uint16_t* weights) {
  if (first >= valid) {
    for (std::int64_t t = 0; t < tokens; t += 32) store_bits(weights + t, _mm512_setzero_si512());
    return;
  }
  const __m512 nothing = _mm512_set1_ps(-__builtin_inff());
  const std::int64_t begin = first / 32 * 32;
  const std::int64_t end = (valid + 31) / 32 * 32;
  __m512 largest = nothing;
  __m512 largest_too = nothing;
  for (std::int64_t t = begin; t < end; t += 32) {  // a NaN is passed over: it shows in the sum
    const __m512 a = _mm512_mask_loadu_ps(nothing, seen(t, first, valid), scores + t);
    const __m512 b = _mm512_mask_loadu_ps(nothing, seen(t + 16, first, valid), scores + t + 16);
    largest = _mm512_max_ps(a, largest);
    largest_too = _mm512_max_ps(b, largest_too);
  }
  const float own = _mm512_reduce_max_ps(_mm512_max_ps(largest, largest_too));
  const float max = own > state->max ? own : state->max;
  const __m512 subtracted = _mm512_set1_ps(max);
  __m512 sum = _mm512_setzero_ps();
  __m512 sum_too = _mm512_setzero_ps();
  for (std::int64_t t = 0; t < begin; t += 32) store_bits(weights + t, _mm512_setzero_si512());
  for (std::int64_t t = begin; t < end; t += 32) {
    const __m512 a = weight_of(_mm512_sub_ps(_mm512_loadu_ps(scores + t), subtracted));
    const __m512 b = weight_of(_mm512_sub_ps(_mm512_loadu_ps(scores + t + 16), subtracted));
    const __m512 kept_a = _mm512_maskz_mov_ps(seen(t, first, valid), a);
    const __m512 kept_b = _mm512_maskz_mov_ps(seen(t + 16, first, valid), b);
    sum = _mm512_add_ps(sum, kept_a);
    sum_too = _mm512_add_ps(sum_too, kept_b);
    store_bits(weights + t, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(kept_b, kept_a)));
  }
  for (std::int64_t t = end; t < tokens; t += 32) store_bits(weights + t, _mm512_setzero_si512());
  const float added = _mm512_reduce_add_ps(_mm512_add_ps(sum, sum_too));
  if (max == state->max) {
    state->sum += added;
    return;
  }
  const float shrink = _mm512_cvtss_f32(weight_of(_mm512_set1_ps(state->max - max)));
  for (std::int64_t d = 0; d < head_dim; d += 16) {
    _mm512_storeu_ps(state->values + d, _mm512_mul_ps(_mm512_loadu_ps(state->values + d), _mm512_set1_ps(shrink)));
  }
  state->sum = state->sum * shrink + added;
  state->max = max;
}

}  // namespace lanner::ops::cpu::LANNER_ISA
