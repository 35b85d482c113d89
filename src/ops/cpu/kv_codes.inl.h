// Keys and values in codes of 8 or 4 bits (KvLayout): writing them, and attention over them. Part of kernels.inl.h,
// which says how it is compiled, and of prompt.inl.h.
//
// Nothing is decoded into memory. A score is scale * (q · codes) + min * sum(q) with the key's scale and min, so that
// the loop over a key has one conversion and one multiplication for a code; and of a value the scale goes into its
// weight before the loop over tokens, in which codes are added up, and the mins are added once behind it. So decoding
// costs about what widening fp16 does, for half or a quarter of the bytes.

// No include guard: it is included once by each of those.

#include "ops/cpu/kernels.h"

namespace lanner::ops::cpu::LANNER_ISA {

struct CodesInt8 {
  static constexpr int kBits = 8;
  static constexpr int kKeys = 1;  // neighbours of a key that share a byte

  /// The codes of kKeys neighbours of 16 tokens' keys.
  LANNER_INLINE void keys(const std::uint8_t* p, F32x16 (&out)[kKeys]) { out[0] = to_float(load_bytes(p)); }
  /// kVectors * 16 codes of the value at `row`, from `first` on. One vector are its last 16.
  template <int kVectors>
  LANNER_INLINE void value(const std::uint8_t* row, std::int64_t first, F32x16 (&out)[kVectors]) {
    for (int v = 0; v < kVectors; ++v) out[v] = to_float(load_bytes(row + first + v * 16));
  }
  /// `count` codes, 32 or the last 16, from `first` on.
  LANNER_INLINE void store_key(const std::uint8_t* codes, std::int64_t count, std::int64_t first, std::int64_t slot,
                               std::uint8_t* keys) {
    for (std::int64_t i = 0; i < count; ++i) keys[(first + i) * kKvBlockTokens + slot] = codes[i];
  }
  LANNER_INLINE void store_value(const std::uint8_t* codes, std::int64_t count, std::int64_t first, std::uint8_t* row) {
    for (std::int64_t i = 0; i < count; ++i) row[first + i] = codes[i];
  }
};

struct CodesInt4 {
  static constexpr int kBits = 4;
  static constexpr int kKeys = 2;

  LANNER_INLINE void keys(const std::uint8_t* p, F32x16 (&out)[kKeys]) {
    const I32x16 both = load_bytes(p);
    out[0] = to_float(low_nibbles(both));
    out[1] = to_float(high_nibbles(both));
  }
  template <int kVectors>
  LANNER_INLINE void value(const std::uint8_t* row, std::int64_t first, F32x16 (&out)[kVectors]) {
    if constexpr (kVectors == 1) {
      out[0] = to_float(load_nibbles(row + first / 2));
    } else {
      for (int v = 0; v < kVectors; v += 2) {
        const I32x16 both = load_bytes(row + first / 2 + v * 8);
        out[v] = to_float(low_nibbles(both));
        out[v + 1] = to_float(high_nibbles(both));
      }
    }
  }
  LANNER_INLINE void store_key(const std::uint8_t* codes, std::int64_t count, std::int64_t first, std::int64_t slot,
                               std::uint8_t* keys) {
    for (std::int64_t i = 0; i < count; i += 2) {
      keys[(first + i) / 2 * kKvBlockTokens + slot] = static_cast<std::uint8_t>(codes[i] + 16 * codes[i + 1]);
    }
  }
  LANNER_INLINE void store_value(const std::uint8_t* codes, std::int64_t count, std::int64_t first, std::uint8_t* row) {
    const std::int64_t half = count / 2;
    for (std::int64_t i = 0; i < half; ++i) {
      row[first / 2 + i] = static_cast<std::uint8_t>(codes[i] + 16 * codes[half + i]);
    }
  }
};

/// Where the parts of a block's head lie, as KvLayout says.
template <typename Codes>
struct CodedHead {
  LANNER_INLINE std::int64_t bytes(std::int64_t head_dim) { return kKvBlockTokens * head_dim * Codes::kBits / 8; }
  LANNER_INLINE const std::uint8_t* keys(const std::byte* head) { return reinterpret_cast<const std::uint8_t*>(head); }
  LANNER_INLINE const std::uint8_t* values(const std::byte* head, std::int64_t head_dim) {
    return keys(head) + bytes(head_dim);
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

template <typename Codes>
LANNER_INLINE CodeSteps store_parameters(const float* x, std::int64_t head_dim, std::int64_t slot,
                                         std::uint16_t* parameters) {
  constexpr auto kLargest = static_cast<float>((1 << Codes::kBits) - 1);
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
template <typename Codes>
LANNER_INLINE void round_to_codes(const float* x, const CodeSteps& steps, std::uint8_t* codes) {
  constexpr auto kLargest = static_cast<float>((1 << Codes::kBits) - 1);
  const F32x16 counted = div(sub(load(x), steps.min), steps.scale);
  float whole[16];
  store(whole, round(min(max(counted, zero()), set1(kLargest))));  // of a NaN the maximum is the zero
  for (int i = 0; i < 16; ++i) codes[i] = static_cast<std::uint8_t>(whole[i]);
}

template <typename Codes>
static void write_codes(const float* key, const float* value, std::int64_t head_dim, std::int64_t slot,
                        std::byte* head) {
  using Head = CodedHead<Codes>;
  const std::int64_t bytes = Head::bytes(head_dim);
  auto* keys = reinterpret_cast<std::uint8_t*>(head);
  std::uint8_t* row = keys + bytes + slot * (bytes / kKvBlockTokens);
  auto* parameters = reinterpret_cast<std::uint16_t*>(head + 2 * bytes);
  const CodeSteps key_steps = store_parameters<Codes>(key, head_dim, slot, parameters);
  const CodeSteps value_steps = store_parameters<Codes>(value, head_dim, slot, parameters + 2 * kKvBlockTokens);
  std::uint8_t codes[32];
  for (std::int64_t d = 0; d < head_dim; d += 32) {
    const std::int64_t count = head_dim - d < 32 ? 16 : 32;
    for (std::int64_t i = 0; i < count; i += 16) round_to_codes<Codes>(key + d + i, key_steps, codes + i);
    Codes::store_key(codes, count, d, slot, keys);
    for (std::int64_t i = 0; i < count; i += 16) round_to_codes<Codes>(value + d + i, value_steps, codes + i);
    Codes::store_value(codes, count, d, row);
  }
}

// --- scores ----------------------------------------------------------------------------------------------------

/// kVectors * 16 tokens of one block, from `slot` on, for kQueries queries of which `q_sums` are the sums.
template <typename Codes, int kQueries, int kVectors>
LANNER_INLINE void score_codes(const std::byte* head, std::int64_t slot, const float* const* q, const float* q_sums,
                               std::int64_t head_dim, float scale, float* scores) {
  using Head = CodedHead<Codes>;
  F32x16 sum[kQueries][kVectors];
  for (auto& query_sums : sum) {
    for (F32x16& s : query_sums) s = zero();
  }
  const std::uint8_t* keys = Head::keys(head) + slot;
  const std::uint8_t* values = Head::values(head, head_dim);
  for (std::int64_t d = 0; d < head_dim; d += Codes::kKeys) {
    prefetch(values);  // a row of keys is as long as a line, and there are as many lines of values
    for (int v = 0; v < kVectors; ++v) {
      F32x16 k[Codes::kKeys];
      Codes::keys(keys + v * 16, k);
      for (int i = 0; i < Codes::kKeys; ++i) {
        for (int n = 0; n < kQueries; ++n) sum[n][v] = fma(k[i], set1(q[n][d + i]), sum[n][v]);
      }
    }
    keys += kKvBlockTokens;
    values += kKvBlockTokens;
  }
  const std::uint16_t* scales = Head::key_parameters(head, head_dim) + slot;
  for (int v = 0; v < kVectors; ++v) {
    const F32x16 step = load_half(scales + v * 16);
    const F32x16 smallest = load_half(scales + kKvBlockTokens + v * 16);
    for (int n = 0; n < kQueries; ++n) {
      const F32x16 product = fma(sum[n][v], step, mul(smallest, set1(q_sums[n])));
      store(scores + n * kChunkTokens + v * 16, mul(product, set1(scale)));
    }
  }
}

template <typename Codes, int kQueries>
  requires requires { Codes::kBits; }
static void scores_as(const std::byte* const* heads, std::int64_t tokens, const float* const* q, std::int64_t head_dim,
                      float scale, float* scores) {
  float q_sums[kQueries];
  for (int n = 0; n < kQueries; ++n) {
    F32x16 sum = zero();
    for (std::int64_t d = 0; d < head_dim; d += 16) sum = add(sum, load(q[n] + d));
    q_sums[n] = reduce_add(sum);
  }
  for (std::int64_t t = 0; t < tokens;) {
    const std::byte* head = heads[t / kKvBlockTokens];
    const std::int64_t slot = t % kKvBlockTokens;
    if (tokens - t >= kScoreVectors * 16) {
      score_codes<Codes, kQueries, kScoreVectors>(head, slot, q, q_sums, head_dim, scale, scores + t);
      t += kScoreVectors * 16;
    } else {
      score_codes<Codes, kQueries, 1>(head, slot, q, q_sums, head_dim, scale, scores + t);
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

/// scaled = weights * the scales of the tokens' values; offsets: the sums of weights * mins. Lane i adds the tokens
/// i, i + 16, …, so that blocks of which all weights are zero change nothing.
template <typename Codes, int kQueries>
LANNER_INLINE void scale_weights(const std::byte* const* heads, std::int64_t tokens, const float* weights,
                                 std::int64_t head_dim, float* scaled, float* offsets) {
  F32x16 sum[kQueries];
  for (F32x16& s : sum) s = zero();
  for (std::int64_t t = 0; t < tokens; t += 16) {
    const std::uint16_t* scales =
        CodedHead<Codes>::value_parameters(heads[t / kKvBlockTokens], head_dim) + t % kKvBlockTokens;
    const F32x16 step = load_parameters(scales, tokens - t);
    const F32x16 smallest = load_parameters(scales + kKvBlockTokens, tokens - t);
    for (int n = 0; n < kQueries; ++n) {
      const F32x16 weight = load(weights + n * kChunkTokens + t);
      store(scaled + n * kChunkTokens + t, mul(weight, step));
      sum[n] = fma(weight, smallest, sum[n]);
    }
  }
  for (int n = 0; n < kQueries; ++n) offsets[n] = reduce_add(sum[n]);
}

template <typename Codes, int kQueries, int kVectors>
LANNER_INLINE void weigh_codes(const std::byte* const* heads, const std::byte* const* next, std::int64_t tokens,
                               const float* scaled, const float* offsets, std::int64_t head_dim, std::int64_t first,
                               float* const* out) {
  F32x16 sum[kQueries][kVectors];
  for (auto& query_sums : sum) {
    for (F32x16& s : query_sums) s = zero();
  }
  const std::int64_t row_bytes = head_dim * Codes::kBits / 8;
  for (std::int64_t block = 0; block * kKvBlockTokens < tokens; ++block) {
    const std::uint8_t* row = CodedHead<Codes>::values(heads[block], head_dim);
    const std::int64_t left = tokens - block * kKvBlockTokens;
    const std::int64_t here = left < kKvBlockTokens ? left : kKvBlockTokens;
    const std::byte* keys = next[block] == nullptr ? nullptr : next[block] + first * Codes::kBits / 8;
    for (std::int64_t t = 0; t < here; ++t, row += row_bytes) {
      if (keys != nullptr) {
        prefetch(keys);
        keys += row_bytes;
      }
      F32x16 value[kVectors];
      Codes::template value<kVectors>(row, first, value);
      for (int n = 0; n < kQueries; ++n) {
        const F32x16 weight = set1(scaled[n * kChunkTokens + block * kKvBlockTokens + t]);
        for (int v = 0; v < kVectors; ++v) sum[n][v] = fma(value[v], weight, sum[n][v]);
      }
    }
  }
  for (int n = 0; n < kQueries; ++n) {
    for (int v = 0; v < kVectors; ++v) store(out[n] + first + v * 16, add(sum[n][v], set1(offsets[n])));
  }
}

template <typename Codes, int kQueries>
  requires requires { Codes::kBits; }
static void values_as(const std::byte* const* heads, const std::byte* const* next, std::int64_t tokens,
                      const float* weights, std::int64_t head_dim, float* const* out) {
  alignas(64) float scaled[kQueries * kChunkTokens];
  float offsets[kQueries];
  scale_weights<Codes, kQueries>(heads, tokens, weights, head_dim, scaled, offsets);
  const auto weigh = [&]<int kVectors>(std::int64_t first) __attribute__((always_inline)) {
    weigh_codes<Codes, kQueries, kVectors>(heads, next, tokens, scaled, offsets, head_dim, first, out);
  };
  std::int64_t d = 0;
  for (; head_dim - d >= kScoreVectors * 16; d += kScoreVectors * 16) weigh.template operator()<kScoreVectors>(d);
  for (; head_dim - d >= 32; d += 32) weigh.template operator()<2>(d);
  if (d < head_dim) weigh.template operator()<1>(d);
}

}  // namespace lanner::ops::cpu::LANNER_ISA
