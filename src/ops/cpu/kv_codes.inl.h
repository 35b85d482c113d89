// Keys and values in codes of 8 or 4 bits (KvLayout): writing them, and attention over them. Part of kernels.inl.h,
// which says how it is compiled, and of prompt.inl.h.
//
// Nothing is decoded into memory. A score is scale * (q . codes) + min * sum(q) with the key's scale and min; and of a
// value the scale goes into its weight, so that codes are added up, and the mins are added once behind the loop. Both
// products are of bytes: a query, and a chunk's weights, become integers of 15 bits with one scale, as the rows of a
// product do (InputView), in two planes of int8 of which each instruction takes four neighbours. So four numbers of a
// key, or four tokens of a value, lie side by side. The sums are exact; what 15 bits leave out is a hundredth of what
// codes do. Widening codes to fp32 took three to four times as many instructions and was no faster than reading fp16.

// No include guard: it is included once by each of those, behind codes.inl.h.

#include "ops/cpu/kernels.h"

namespace lanner::ops::cpu::LANNER_ISA {

inline constexpr std::int64_t kWord = 4;  // codes that lie side by side

struct CodesInt8 {
  static constexpr int kBits = 8;
  static constexpr int kPlanes = 1;  // of codes in 64 bytes, of 16 words each

  /// The codes at p, 16 words of each plane.
  LANNER_INLINE void unpack(const std::uint8_t* p, Codes (&out)[kPlanes]) { out[0] = load_codes(p); }
  /// kVectors * 16 numbers, from `first` on, of a word of tokens. One vector are the last 16.
  template <int kVectors>
  LANNER_INLINE void value(const std::uint8_t* words, std::int64_t first, Codes (&out)[kVectors]) {
    for (int v = 0; v < kVectors; ++v) out[v] = load_codes(words + (first + v * 16) * kWord);
  }
  LANNER_INLINE I32x16 start(std::int32_t sum_of_x) {
    return add_int(bytes_start(sum_of_x), set1_int(128 * sum_of_x));  // codes are 0 to 255, and no excess
  }
  LANNER_INLINE I32x16 dot(I32x16 sum, Codes codes, std::int32_t x4) { return dot_bytes(sum, codes, x4); }

  /// `count` codes, 32 or the last 16, from `first` on, into a key's words, which lie 64 tokens apart.
  LANNER_INLINE void store_key(const std::uint8_t* codes, std::int64_t count, std::int64_t first, std::int64_t slot,
                               std::uint8_t* keys) {
    for (std::int64_t i = 0; i < count; i += kWord) {
      __builtin_memcpy(keys + ((first + i) / kWord * kKvBlockTokens + slot) * kWord, codes + i, kWord);
    }
  }
  /// Into the token's place in its words of tokens.
  LANNER_INLINE void store_value(const std::uint8_t* codes, std::int64_t count, std::int64_t first,
                                 std::uint8_t* place) {
    for (std::int64_t i = 0; i < count; ++i) place[(first + i) * kWord] = codes[i];
  }
};

struct CodesInt4 {
  static constexpr int kBits = 4;
  static constexpr int kPlanes = 2;

  LANNER_INLINE void unpack(const std::uint8_t* p, Codes (&out)[kPlanes]) {
    const Codes both = load_codes(p);
    out[0] = low_nibbles(both);
    out[1] = high_nibbles(both);
  }
  template <int kVectors>
  LANNER_INLINE void value(const std::uint8_t* words, std::int64_t first, Codes (&out)[kVectors]) {
    const std::uint8_t* p = words + first / 2 * kWord;
    if constexpr (kVectors == 1) {
      out[0] = load_nibbles(p);
    } else {
      for (int v = 0; v < kVectors; v += 2) {
        const Codes both = load_codes(p + v * 8 * kWord);
        out[v] = low_nibbles(both);
        out[v + 1] = high_nibbles(both);
      }
    }
  }
  LANNER_INLINE I32x16 start(std::int32_t /*sum_of_x*/) { return set1_int(0); }
  LANNER_INLINE I32x16 dot(I32x16 sum, Codes codes, std::int32_t x4) { return dot_nibbles(sum, codes, x4); }

  LANNER_INLINE void store_key(const std::uint8_t* codes, std::int64_t count, std::int64_t first, std::int64_t slot,
                               std::uint8_t* keys) {
    for (std::int64_t i = 0; i < count; i += 2 * kWord) {
      std::uint8_t* word = keys + ((first + i) / (2 * kWord) * kKvBlockTokens + slot) * kWord;
      for (std::int64_t j = 0; j < kWord; ++j) {
        word[j] = static_cast<std::uint8_t>(codes[i + j] + 16 * codes[i + kWord + j]);
      }
    }
  }
  LANNER_INLINE void store_value(const std::uint8_t* codes, std::int64_t count, std::int64_t first,
                                 std::uint8_t* place) {
    const std::int64_t half = count / 2;
    for (std::int64_t i = 0; i < half; ++i) {
      place[(first / 2 + i) * kWord] = static_cast<std::uint8_t>(codes[i] + 16 * codes[half + i]);
    }
  }
};

/// Where the parts of a block's head lie, as KvLayout says.
template <typename Format>
struct CodedHead {
  LANNER_INLINE std::int64_t bytes(std::int64_t head_dim) { return kKvBlockTokens * head_dim * Format::kBits / 8; }
  LANNER_INLINE const std::uint8_t* keys(const std::byte* head) { return reinterpret_cast<const std::uint8_t*>(head); }
  LANNER_INLINE const std::uint8_t* values(const std::byte* head, std::int64_t head_dim) {
    return keys(head) + bytes(head_dim);
  }
  /// The words of the token in `slot` and its neighbours.
  LANNER_INLINE std::int64_t value_words(std::int64_t slot, std::int64_t head_dim) {
    return slot / kWord * (head_dim * kWord * Format::kBits / 8);
  }
  /// 64 scales, then 64 mins.
  LANNER_INLINE const std::uint16_t* key_parameters(const std::byte* head, std::int64_t head_dim) {
    return reinterpret_cast<const std::uint16_t*>(head + 2 * bytes(head_dim));
  }
  LANNER_INLINE const std::uint16_t* value_parameters(const std::byte* head, std::int64_t head_dim) {
    return key_parameters(head, head_dim) + 2 * kKvBlockTokens;
  }
};

// --- writing ---------------------------------------------------------------------------------------------------

/// A token's scale and min as they are stored, in all lanes.
struct CodeSteps {
  F32x16 scale, min;
};

LANNER_INLINE F32x16 store_parameter(float value, std::uint16_t* place) {
  std::uint16_t rounded[16];
  store_half(rounded, set1(value));
  *place = rounded[0];
  return load_half(rounded);
}

template <typename Format>
LANNER_INLINE CodeSteps store_parameters(const float* x, std::int64_t head_dim, std::int64_t slot,
                                         std::uint16_t* parameters) {
  constexpr auto kLargest = static_cast<float>((1 << Format::kBits) - 1);
  F32x16 largest = load(x);
  F32x16 negative = sub(zero(), load(x));  // the largest of -x
  F32x16 poison = zero();                  // 0, or NaN when a number is not finite
  for (std::int64_t d = 0; d < head_dim; d += 16) {
    const F32x16 numbers = load(x + d);
    largest = max(largest, numbers);
    negative = max(negative, sub(zero(), numbers));
    poison = fma(numbers, zero(), poison);
  }
  const float smallest = -reduce_max(negative);
  const float step = (reduce_max(largest) - smallest) / kLargest;
  return {.scale = store_parameter(step + reduce_add(poison), parameters + slot),
          .min = store_parameter(smallest, parameters + kKvBlockTokens + slot)};
}

/// 16 codes. What no step counts, since the scale is 0 or NaN, becomes one too.
template <typename Format>
LANNER_INLINE void round_to_codes(const float* x, const CodeSteps& steps, std::uint8_t* codes) {
  constexpr auto kLargest = static_cast<float>((1 << Format::kBits) - 1);
  const F32x16 counted = div(sub(load(x), steps.min), steps.scale);
  float whole[16];
  store(whole, round(min(max(counted, zero()), set1(kLargest))));  // of a NaN the maximum is the zero
  for (int i = 0; i < 16; ++i) codes[i] = static_cast<std::uint8_t>(whole[i]);
}

template <typename Format>
static void write_codes(const float* key, const float* value, std::int64_t head_dim, std::int64_t slot,
                        std::byte* head) {
  using Head = CodedHead<Format>;
  const std::int64_t bytes = Head::bytes(head_dim);
  auto* keys = reinterpret_cast<std::uint8_t*>(head);
  std::uint8_t* place = keys + bytes + Head::value_words(slot, head_dim) + slot % kWord;
  auto* parameters = reinterpret_cast<std::uint16_t*>(head + 2 * bytes);
  const CodeSteps key_steps = store_parameters<Format>(key, head_dim, slot, parameters);
  const CodeSteps value_steps = store_parameters<Format>(value, head_dim, slot, parameters + 2 * kKvBlockTokens);
  std::uint8_t codes[32];
  for (std::int64_t d = 0; d < head_dim; d += 32) {
    const std::int64_t count = head_dim - d < 32 ? 16 : 32;
    for (std::int64_t i = 0; i < count; i += 16) round_to_codes<Format>(key + d + i, key_steps, codes + i);
    Format::store_key(codes, count, d, slot, keys);
    for (std::int64_t i = 0; i < count; i += 16) round_to_codes<Format>(value + d + i, value_steps, codes + i);
    Format::store_value(codes, count, d, place);
  }
}

// --- scores ----------------------------------------------------------------------------------------------------

/// Vectors in flight of so many queries, each with two sums.
constexpr int coded_vectors(int queries) {
  const bool many = 2 * queries > kScoreQueries;
  return many && kScoreVectors > 2 ? kScoreVectors / 2 : kScoreVectors;
}

/// What numbers became that are multiplied with codes.
struct RoundedRow {
  float scale = 0;
  std::int32_t sum = 0;  // of the integers
};

/// n numbers, a multiple of 16, as integers of 15 bits in two planes. One that is not finite makes the scale NaN.
LANNER_INLINE RoundedRow round_row(const float* x, std::int64_t n, std::int8_t* high, std::int8_t* low) {
  constexpr auto kLargest = static_cast<float>(kLargestCode);
  F32x16 largest = zero();
  F32x16 poison = zero();
  for (std::int64_t i = 0; i < n; i += 16) {
    const F32x16 numbers = load(x + i);
    largest = max(largest, abs(numbers));
    poison = fma(numbers, zero(), poison);
  }
  const float most = reduce_max(largest);
  const F32x16 inverse = set1(most > 0 ? kLargest / most : 0.0F);
  RoundedRow row{.scale = most * (1.0F / kLargest) + reduce_add(poison)};
  for (std::int64_t i = 0; i < n; i += 16) row.sum += store_codes(mul(load(x + i), inverse), high + i, low + i);
  return row;
}

/// The sums of both planes before the first product.
template <typename Format, int kQueries, int kVectors>
LANNER_INLINE void start_sums(const RoundedRow (&rows)[kQueries], I32x16 (&upper)[kQueries][kVectors],
                              I32x16 (&lower)[kQueries][kVectors]) {
  for (int n = 0; n < kQueries; ++n) {
    for (int v = 0; v < kVectors; ++v) {
      upper[n][v] = set1_int(0);
      lower[n][v] = Format::start(rows[n].sum);
    }
  }
}

/// Both planes' sums as one, which may not fit an integer.
LANNER_INLINE F32x16 join_planes(I32x16 upper, I32x16 lower) {
  return fma(to_float(upper), set1(static_cast<float>(kLowSteps)), to_float(lower));
}

/// Queries in two planes each, (head_dim) codes a plane.
template <int kQueries>
struct RoundedQueries {
  alignas(64) std::int8_t high[kQueries][kMaxCodedHead];
  alignas(64) std::int8_t low[kQueries][kMaxCodedHead];
  RoundedRow rows[kQueries];
  float factors[kQueries];  // what a sum of codes is multiplied with beside the key's scale
  float sums[kQueries];     // of the numbers, times the scale of scores
};

/// kVectors * 16 tokens of one block, from `slot` on.
template <typename Format, int kQueries, int kVectors>
LANNER_INLINE void score_codes(const std::byte* head, std::int64_t slot, const RoundedQueries<kQueries>& q,
                               std::int64_t head_dim, float* scores) {
  using Head = CodedHead<Format>;
  I32x16 upper[kQueries][kVectors];
  I32x16 lower[kQueries][kVectors];
  start_sums<Format>(q.rows, upper, lower);
  constexpr std::int64_t kNumbers = kWord * Format::kPlanes;  // of a key in a step
  const std::uint8_t* keys = Head::keys(head) + slot * kWord;
  // A step takes kVectors lines of a block's keys, and there are as many lines of values.
  const std::uint8_t* ahead = Head::values(head, head_dim) + slot / 16 * (head_dim / kNumbers) * 64;
  for (std::int64_t d = 0; d < head_dim; d += kNumbers) {
    Codes codes[kVectors][Format::kPlanes];
    for (int v = 0; v < kVectors; ++v) {
      prefetch(ahead + v * 64);
      Format::unpack(keys + v * 64, codes[v]);
    }
    for (int plane = 0; plane < Format::kPlanes; ++plane) {
      for (int n = 0; n < kQueries; ++n) {
        const std::int32_t high = four_codes(q.high[n] + d + plane * kWord);
        const std::int32_t low = four_codes(q.low[n] + d + plane * kWord);
        for (int v = 0; v < kVectors; ++v) {
          upper[n][v] = Format::dot(upper[n][v], codes[v][plane], high);
          lower[n][v] = Format::dot(lower[n][v], codes[v][plane], low);
        }
      }
    }
    keys += kKvBlockTokens * kWord;
    ahead += kVectors * 64;
  }
  const std::uint16_t* scales = Head::key_parameters(head, head_dim) + slot;
  for (int v = 0; v < kVectors; ++v) {
    const F32x16 step = load_half(scales + v * 16);
    const F32x16 smallest = load_half(scales + kKvBlockTokens + v * 16);
    for (int n = 0; n < kQueries; ++n) {
      const F32x16 product = mul(join_planes(upper[n][v], lower[n][v]), set1(q.factors[n]));
      store(scores + n * kChunkTokens + v * 16, fma(product, step, mul(smallest, set1(q.sums[n]))));
    }
  }
}

template <typename Format, int kQueries>
  requires requires { Format::kBits; }
static void scores_as(const std::byte* const* heads, std::int64_t tokens, const float* const* q, std::int64_t head_dim,
                      float scale, float* scores) {
  RoundedQueries<kQueries> rounded;
  for (int n = 0; n < kQueries; ++n) {
    rounded.rows[n] = round_row(q[n], head_dim, rounded.high[n], rounded.low[n]);
    rounded.factors[n] = scale * rounded.rows[n].scale;
    F32x16 sum = zero();
    for (std::int64_t d = 0; d < head_dim; d += 16) sum = add(sum, load(q[n] + d));
    rounded.sums[n] = scale * reduce_add(sum);
  }
  constexpr int kVectors = coded_vectors(kQueries);
  for (std::int64_t t = 0; t < tokens;) {
    const std::byte* head = heads[t / kKvBlockTokens];
    const std::int64_t slot = t % kKvBlockTokens;
    if (tokens - t >= kVectors * 16) {
      score_codes<Format, kQueries, kVectors>(head, slot, rounded, head_dim, scores + t);
      t += kVectors * 16;
    } else {
      score_codes<Format, kQueries, 1>(head, slot, rounded, head_dim, scores + t);
      t += 16;
    }
  }
}

// --- values ----------------------------------------------------------------------------------------------------

/// 16 parameters of tokens of which `count` were written: zeros for the others.
LANNER_INLINE F32x16 load_parameters(const std::uint16_t* parameters, std::int64_t count) {
  if (count >= 16) return load_half(parameters);
  std::uint16_t written[16] = {};
  __builtin_memcpy(written, parameters, static_cast<std::size_t>(count) * sizeof(*written));
  return load_half(written);
}

/// A chunk's weights, times the scales of the tokens' values, in two planes.
template <int kQueries>
struct RoundedWeights {
  alignas(64) std::int8_t high[kQueries][kChunkTokens];
  alignas(64) std::int8_t low[kQueries][kChunkTokens];
  RoundedRow rows[kQueries];
  float offsets[kQueries];  // the sums of weights * mins
};

/// Lane i of an offset adds the tokens i, i + 16, ..., so that blocks of which all weights are zero change nothing.
template <typename Format, int kQueries>
LANNER_INLINE void round_weights(const std::byte* const* heads, std::int64_t tokens, const float* weights,
                                 std::int64_t head_dim, RoundedWeights<kQueries>& out) {
  const std::int64_t padded = (tokens + 15) / 16 * 16;
  for (int n = 0; n < kQueries; ++n) {
    alignas(64) float scaled[kChunkTokens];
    F32x16 sum = zero();
    for (std::int64_t t = 0; t < padded; t += 16) {
      const std::uint16_t* scales =
          CodedHead<Format>::value_parameters(heads[t / kKvBlockTokens], head_dim) + t % kKvBlockTokens;
      const F32x16 weight = load(weights + n * kChunkTokens + t);
      store(scaled + t, mul(weight, load_parameters(scales, tokens - t)));
      sum = fma(weight, load_parameters(scales + kKvBlockTokens, tokens - t), sum);
    }
    out.rows[n] = round_row(scaled, padded, out.high[n], out.low[n]);
    out.offsets[n] = reduce_add(sum);
  }
}

template <typename Format, int kQueries, int kVectors>
LANNER_INLINE void weigh_codes(const std::byte* const* heads, const std::byte* const* next, std::int64_t tokens,
                               const RoundedWeights<kQueries>& weights, std::int64_t head_dim, std::int64_t first,
                               float* const* out) {
  I32x16 upper[kQueries][kVectors];
  I32x16 lower[kQueries][kVectors];
  start_sums<Format>(weights.rows, upper, lower);
  constexpr std::int64_t kBytes = kVectors * 16 * kWord * Format::kBits / 8;  // of a word of tokens, here
  const std::int64_t word_bytes = CodedHead<Format>::value_words(kWord, head_dim);
  const std::int64_t begin = first * kWord * Format::kBits / 8;
  for (std::int64_t block = 0; block * kKvBlockTokens < tokens; ++block) {
    const std::uint8_t* words = CodedHead<Format>::values(heads[block], head_dim);
    const std::int64_t left = tokens - block * kKvBlockTokens;
    const std::int64_t here = left < kKvBlockTokens ? left : kKvBlockTokens;
    const std::byte* keys = next[block] == nullptr ? nullptr : next[block] + begin;
    for (std::int64_t t = 0; t < here; t += kWord, words += word_bytes) {
      if (keys != nullptr) {
        for (std::int64_t line = 0; line < kBytes; line += 64) prefetch(keys + line);
        keys += word_bytes;
      }
      Codes codes[kVectors];
      Format::template value<kVectors>(words, first, codes);
      for (int n = 0; n < kQueries; ++n) {
        const std::int32_t high = four_codes(weights.high[n] + block * kKvBlockTokens + t);
        const std::int32_t low = four_codes(weights.low[n] + block * kKvBlockTokens + t);
        for (int v = 0; v < kVectors; ++v) {
          upper[n][v] = Format::dot(upper[n][v], codes[v], high);
          lower[n][v] = Format::dot(lower[n][v], codes[v], low);
        }
      }
    }
  }
  for (int n = 0; n < kQueries; ++n) {
    for (int v = 0; v < kVectors; ++v) {
      const F32x16 sum = join_planes(upper[n][v], lower[n][v]);
      store(out[n] + first + v * 16, fma(sum, set1(weights.rows[n].scale), set1(weights.offsets[n])));
    }
  }
}

template <typename Format, int kQueries>
  requires requires { Format::kBits; }
static void values_as(const std::byte* const* heads, const std::byte* const* next, std::int64_t tokens,
                      const float* weights, std::int64_t head_dim, float* const* out) {
  RoundedWeights<kQueries> rounded;
  round_weights<Format, kQueries>(heads, tokens, weights, head_dim, rounded);
  const auto weigh = [&]<int kVectors>(std::int64_t first) __attribute__((always_inline)) {
    weigh_codes<Format, kQueries, kVectors>(heads, next, tokens, rounded, head_dim, first, out);
  };
  constexpr int kVectors = coded_vectors(kQueries);
  std::int64_t d = 0;
  for (; head_dim - d >= kVectors * 16; d += kVectors * 16) weigh.template operator()<kVectors>(d);
  for (; head_dim - d >= 32; d += 32) weigh.template operator()<2>(d);
  if (d < head_dim) weigh.template operator()<1>(d);
}

}  // namespace lanner::ops::cpu::LANNER_ISA
