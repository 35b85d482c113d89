// What is around the products of prompt.h: one source for vdpbf16ps and for tiles. Compiled for AVX-512 with BF16, so
// that nothing here may instantiate what other files share; see kernels.inl.h. The including file has defined
// LANNER_ISA and brought the vocabulary of simd_avx512.h into it.

// No include guard: it is included once by each of those that compile it.

#include "ops/cpu/codes.inl.h"
#include "ops/cpu/kv_codes.inl.h"
#include "ops/cpu/prompt.h"

namespace lanner::ops::cpu::LANNER_ISA {

inline constexpr std::int64_t kTileColumns = 16;  // of a product's right side

LANNER_INLINE F32x16 broadcast_half(const std::uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_set1_epi16(static_cast<short>(*p)))};
}
LANNER_INLINE void store_bits(std::uint16_t* p, __m512i bits) { _mm512_storeu_si512(p, bits); }

/// What a tile has of two neighbours in depth: of each column its pair.
LANNER_INLINE __m512i round_pairs(F32x16 even, F32x16 odd) {
  const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd.v, even.v));
  const __m512i in_turn = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(in_turn, both);
}
struct PairsF16 {
  LANNER_INLINE __m512i pairs(const std::uint16_t* even, const std::uint16_t* odd) {
    return round_pairs(load_half(even), load_half(odd));
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

/// One byte of each of 16 words, as a number.
LANNER_INLINE F32x16 byte_of_words(Codes words, int byte) {
  const __m512i shifted = _mm512_srlv_epi32(words.v, _mm512_set1_epi32(8 * byte));
  return {_mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(255)))};
}

template <typename Format>
static void arrange_key_codes(const std::byte* const* heads, std::int64_t tokens, std::int64_t head_dim,
                              std::uint16_t* out) {
  using Head = CodedHead<Format>;
  const std::int64_t depth = prompt_depth(head_dim);
  const std::int64_t padded = prompt_depth(tokens);
  for (std::int64_t t = 0; t < padded; t += kTileColumns) {
    const std::byte* head = heads[t / kKvBlockTokens];
    const std::int64_t slot = t % kKvBlockTokens;
    const std::uint8_t* keys = Head::keys(head) + slot * kWord;
    const F32x16 step = load_half(Head::key_parameters(head, head_dim) + slot);
    const F32x16 smallest = load_half(Head::key_parameters(head, head_dim) + kKvBlockTokens + slot);
    std::uint16_t* tile = out + t * depth;
    for (std::int64_t d = 0; d < head_dim; keys += kKvBlockTokens * kWord) {
      Codes planes[Format::kPlanes];
      Format::unpack(keys, planes);
      for (const Codes& plane : planes) {
        for (int i = 0; i < kWord; i += 2, d += 2) {
          const F32x16 even = fma(byte_of_words(plane, i), step, smallest);
          const F32x16 odd = fma(byte_of_words(plane, i + 1), step, smallest);
          store_bits(tile + d * kTileColumns, round_pairs(even, odd));
        }
      }
    }
    for (std::int64_t d = head_dim; d < depth; d += 2) store_bits(tile + d * kTileColumns, _mm512_setzero_si512());
  }
}

static void arrange_keys(const KvLayout& layout, const std::byte* const* heads, std::int64_t tokens,
                         std::uint16_t* out) {
  const std::int64_t head_dim = layout.head_dim;
  if (layout.codes == KvCodes::kInt8) return arrange_key_codes<CodesInt8>(heads, tokens, head_dim, out);
  if (layout.codes == KvCodes::kInt4) return arrange_key_codes<CodesInt4>(heads, tokens, head_dim, out);
  if (layout.dtype == DType::kF16) return arrange_keys_as<PairsF16>(heads, tokens, head_dim, out);
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

/// Of the word of tokens at t, kVectors * 16 numbers of their values, from d on, into as many tiles.
template <typename Format, int kVectors>
LANNER_INLINE void arrange_code_word(const std::uint8_t* words, const F32x16* steps, const F32x16* smallest,
                                     std::int64_t t, std::int64_t d, std::uint16_t* out) {
  Codes codes[kVectors];
  Format::template value<kVectors>(words, d, codes);
  for (int v = 0; v < kVectors; ++v) {
    for (int i = 0; i < kWord; i += 2) {
      const F32x16 even = fma(byte_of_words(codes[v], i), steps[i], smallest[i]);
      const F32x16 odd = fma(byte_of_words(codes[v], i + 1), steps[i + 1], smallest[i + 1]);
      store_bits(out + ((d / kTileColumns + v) * kChunkTokens + t + i) * kTileColumns, round_pairs(even, odd));
    }
  }
}

template <typename Format>
static void arrange_value_codes(const std::byte* const* heads, std::int64_t tokens, std::int64_t head_dim,
                                std::uint16_t* out) {
  using Head = CodedHead<Format>;
  const std::int64_t padded = prompt_depth(tokens);
  for (std::int64_t t = 0; t < padded; t += kWord) {
    const std::byte* head = heads[t / kKvBlockTokens];
    const std::int64_t slot = t % kKvBlockTokens;
    const std::uint16_t* parameters = Head::value_parameters(head, head_dim) + slot;
    const std::uint8_t* words = Head::values(head, head_dim) + Head::value_words(slot, head_dim);
    F32x16 steps[kWord];
    F32x16 smallest[kWord];
    for (int i = 0; i < kWord; ++i) {  // behind the last token all is zero: any bytes times 0
      const bool written = t + i < tokens;
      steps[i] = written ? broadcast_half(parameters + i) : zero();
      smallest[i] = written ? broadcast_half(parameters + kKvBlockTokens + i) : zero();
    }
    std::int64_t d = 0;
    for (; d + 32 <= head_dim; d += 32) arrange_code_word<Format, 2>(words, steps, smallest, t, d, out);
    if (d < head_dim) arrange_code_word<Format, 1>(words, steps, smallest, t, d, out);
  }
}

static void arrange_values(const KvLayout& layout, const std::byte* const* heads, std::int64_t tokens,
                           std::uint16_t* out) {
  const std::int64_t head_dim = layout.head_dim;
  if (layout.codes == KvCodes::kInt8) return arrange_value_codes<CodesInt8>(heads, tokens, head_dim, out);
  if (layout.codes == KvCodes::kInt4) return arrange_value_codes<CodesInt4>(heads, tokens, head_dim, out);
  if (layout.dtype == DType::kF16) return arrange_values_as<PairsF16>(heads, tokens, head_dim, out);
  return arrange_values_as<PairsBF16>(heads, tokens, head_dim, out);
}

/// e^x for x <= 0 to 8e-5 of it, a twentieth of what rounding to bf16 takes; 2^-126, which weighs nothing beside the
/// largest's 1, from -87 on: less would not be a normal number, at which processors stumble. A NaN stays one.
LANNER_INLINE __m512 weight_of(__m512 x) {
  const __m512 exponent = _mm512_max_ps(_mm512_set1_ps(-126.0F), _mm512_mul_ps(x, _mm512_set1_ps(1.44269504F)));
  const __m512 n = _mm512_roundscale_ps(exponent, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(exponent, n);
  __m512 p = _mm512_set1_ps(5.51716685295105e-2F);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.426111251115799e-1F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.932609677314758e-1F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.999280571937561e-1F));
  return _mm512_scalef_ps(p, n);
}

/// Scores of a query and where it sees them; 32 tokens at a time. kAll: it sees all of these.
struct SeenScores {
  const float* scores;
  std::int64_t first, valid;

  /// Which of the 16 tokens from t on lie in [first, valid).
  LANNER_INLINE __mmask16 seen(const SeenScores& s, std::int64_t t) {
    const std::int64_t skipped = s.first - t < 0 ? 0 : s.first - t > 16 ? 16 : s.first - t;
    const std::int64_t end = s.valid - t < 0 ? 0 : s.valid - t > 16 ? 16 : s.valid - t;
    const unsigned before = (1U << static_cast<unsigned>(skipped)) - 1U;
    return static_cast<__mmask16>(((1U << static_cast<unsigned>(end)) - 1U) & ~before);
  }
  template <bool kAll>
  LANNER_INLINE __m512 largest(const SeenScores& s, std::int64_t t, __m512 so_far) {
    const __m512 all = _mm512_loadu_ps(s.scores + t);
    if constexpr (kAll) return _mm512_max_ps(all, so_far);  // a NaN is passed over: it shows in the sum
    return _mm512_mask_max_ps(so_far, seen(s, t), all, so_far);
  }
  template <bool kAll>
  LANNER_INLINE __m512 weight(const SeenScores& s, std::int64_t t, __m512 max) {
    const __m512 weight = weight_of(_mm512_sub_ps(_mm512_loadu_ps(s.scores + t), max));
    if constexpr (kAll) return weight;
    return _mm512_maskz_mov_ps(seen(s, t), weight);
  }
};

/// visit.template operator()<all>(t) for each 32 tokens of which the query sees some.
template <typename Visit>
LANNER_INLINE void for_each_seen(const SeenScores& s, Visit visit) {
  const std::int64_t end = (s.valid + 31) / 32 * 32;
  std::int64_t t = s.first / 32 * 32;
  if (t < s.first) {
    visit.template operator()<false>(t);
    t += 32;
  }
  for (; t + 32 <= s.valid; t += 32) visit.template operator()<true>(t);
  if (t < end) visit.template operator()<false>(t);
}

static void weigh(const float* scores, std::int64_t first, std::int64_t valid, std::int64_t tokens,
                  std::int64_t head_dim, PromptState* state, std::uint16_t* weights) {
  if (first >= valid) {
    for (std::int64_t t = 0; t < tokens; t += 32) store_bits(weights + t, _mm512_setzero_si512());
    return;
  }
  const SeenScores seen{.scores = scores, .first = first, .valid = valid};
  __m512 largest[2] = {_mm512_set1_ps(-__builtin_inff()), _mm512_set1_ps(-__builtin_inff())};
  for_each_seen(seen, [&]<bool kAll>(std::int64_t t) __attribute__((always_inline)) {
    largest[0] = SeenScores::largest<kAll>(seen, t, largest[0]);
    largest[1] = SeenScores::largest<kAll>(seen, t + 16, largest[1]);
  });
  const float own = _mm512_reduce_max_ps(_mm512_max_ps(largest[0], largest[1]));
  const float max = own > state->max ? own : state->max;
  const __m512 subtracted = _mm512_set1_ps(max);
  __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (std::int64_t t = 0; t < first / 32 * 32; t += 32) store_bits(weights + t, _mm512_setzero_si512());
  for_each_seen(seen, [&]<bool kAll>(std::int64_t t) __attribute__((always_inline)) {
    const __m512 a = SeenScores::weight<kAll>(seen, t, subtracted);
    const __m512 b = SeenScores::weight<kAll>(seen, t + 16, subtracted);
    sum[0] = _mm512_add_ps(sum[0], a);
    sum[1] = _mm512_add_ps(sum[1], b);
    store_bits(weights + t, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a)));
  });
  for (std::int64_t t = (valid + 31) / 32 * 32; t < tokens; t += 32) store_bits(weights + t, _mm512_setzero_si512());
  const float added = _mm512_reduce_add_ps(_mm512_add_ps(sum[0], sum[1]));
  if (max == state->max) {
    state->sum += added;
    return;
  }
  if (state->max == -__builtin_inff()) {  // the first that it sees: there is nothing to shrink
    state->sum = added;
    state->max = max;
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
