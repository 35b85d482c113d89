#pragma once
// What a warp does with its tokens of a page in codes (attention_code_pages.cuh): page_warp.cuh, with codes in the
// place of numbers.
//
// A number is code * scale + min with scale and min of its token, so that codes enter the products as they are, exact
// in fp16, and scale and min come to the sums:
//   scores   scale * (codes · q) + min * sum(q)
//   values   sum over tokens of (weight * scale) * codes, and of weight * min, which is the same for all elements
// What is rounded to fp16 is q, relative to a power of two near its head's largest element, and weight * scale,
// relative to one that the scales do not pass: `unit`, which is raised as the weights' origin is. Both so have room in
// fp16 whatever the model computes in.
//
// A lane reads 16 codes of a key, and 8 * kVectors of a value, at a time. Codes of tokens that the query does not see
// may be anything but are finite; their scales and mins are left out.

#include "ops/cuda/kv_codes.cuh"
#include "ops/cuda/page_warp.cuh"

namespace lanner::ops::cuda {

template <KvCodes kCodes, int kVectors, bool kWhole>
struct CodePageWarp : PageSums<kVectors> {
  using Sums = PageSums<kVectors>;
  using Sums::column;
  using Sums::kDims;
  using Sums::kTiles;
  using Sums::row;
  using Sums::sum;
  using Sums::total;
  static constexpr int kKeyCodes = 16;
  static constexpr int kValueCodes = 8 * kVectors;
  static constexpr float kLeastUnit = 0x1p-30F;  // below all scales
  using KeyWords = CodeWords<kCodes, kKeyCodes>;
  using ValueWords = CodeWords<kCodes, kValueCodes>;

  std::uint32_t q[kTiles][2];  // of 16 elements of a key, two steps of the product for each 32 bytes of fp16
  float query_sum[2];          // of the rounded queries of this lane's heads
  float query_unit[2];         // what they are relative to
  float offset[2] = {0, 0};    // of this lane's weights, each times its token's min
  float unit = kLeastUnit;     // of the sums: a power of two
  int given_dim;

  __device__ __forceinline__ int head_dim() const { return kWhole ? kDims : given_dim; }
  __device__ __forceinline__ int row_bytes() const { return code_bytes(kCodes, head_dim()); }
  /// Of elements behind the head's last one others are read, which count nothing.
  template <int kCount>
  __device__ __forceinline__ int element(int wanted) const {
    return kWhole ? wanted : min(wanted, given_dim - kCount);
  }
  /// Of element tile `tile`: that of sums 0 and 1, or of 2 and 3.
  __device__ __forceinline__ int element_of(int tile, bool upper) const {
    return row * kValueCodes + tile + (upper ? kValueCodes / 2 : 0);
  }

  __device__ void load_queries(const AttentionWork& work, int query_row, int first_head, int heads) {
    given_dim = work.head_dim;
    const float* from = work.q + (static_cast<std::int64_t>(query_row) * work.heads + first_head + row) * work.head_dim;
    float4 v[kTiles];
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const int at = i / 4 * 64 + column * kKeyCodes + i % 4 * 4;
      v[i] = make_float4(0, 0, 0, 0);
      if (row < heads && at < work.head_dim) v[i] = load_fresh(reinterpret_cast<const float4*>(from + at));
      largest = fmaxf(largest, fmaxf(fmaxf(fabsf(v[i].x), fabsf(v[i].y)), fmaxf(fabsf(v[i].z), fabsf(v[i].w))));
    }
    // What is not finite stays so: relative to a power of two that is.
    largest = over_columns<false>(largest);
    const int exponent = min(max(static_cast<int>(__float_as_uint(largest) >> 23), 1), 253);
    const float inverse = __uint_as_float(static_cast<std::uint32_t>(254 - exponent) << 23);
    float all = 0;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      q[i][0] = rounded_word<__half>(v[i].x * inverse, v[i].y * inverse);
      q[i][1] = rounded_word<__half>(v[i].z * inverse, v[i].w * inverse);
      const float2 low = widen_word<__half>(q[i][0]);
      const float2 high = widen_word<__half>(q[i][1]);
      all += (low.x + low.y) + (high.x + high.y);
    }
    all = over_columns<true>(all);
    const float own_unit = __uint_as_float(static_cast<std::uint32_t>(exponent) << 23);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      query_sum[h] = __shfl_sync(kAllLanes, all, (2 * column + h) * 4);
      query_unit[h] = __shfl_sync(kAllLanes, own_unit, (2 * column + h) * 4);
    }
  }

  /// keys, values: codes of the tile's first token; key_pairs, value_pairs: its scale and min.
  __device__ __forceinline__ void take(const AttentionWork& work, const TileContext& tile, const std::byte* keys,
                                       const std::byte* values, const std::uint32_t* key_pairs,
                                       const std::uint32_t* value_pairs, int first_head, int heads) {
    float scores[4];
    multiply_keys(keys, scores);
    float2 value_pair[2];  // of tokens `row` and `row` + 8
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float2 pair = widen_word<__half>(key_pairs[row + i * 8]);
      value_pair[i] = widen_word<__half>(value_pairs[row + i * 8]);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        scores[2 * i + h] = fmaf(pair.x, scores[2 * i + h], pair.y * query_sum[h]) * query_unit[h];
      }
    }
    this->shape(work, tile, first_head, heads, scores);
    if (!tile.is_whole()) [[unlikely]] {
      this->hide_unseen(tile, scores);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (!tile.sees(row + i * 8)) value_pair[i] = make_float2(0, 0);
      }
    }
    this->weigh(scores, [this](int h, float factor) { offset[h] *= factor; });
    const bool beyond = value_pair[0].x > unit || value_pair[1].x > unit;
    if (__any_sync(kAllLanes, beyond)) raise_unit(fmaxf(value_pair[0].x, value_pair[1].x));
    const float inverse = __uint_as_float((254U << 23) - __float_as_uint(unit));
    std::uint32_t weights[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float share = value_pair[i].x * inverse;
      weights[i] = transposed(rounded_word<__half>(scores[2 * i] * share, scores[2 * i + 1] * share));
#pragma unroll
      for (int h = 0; h < 2; ++h) offset[h] = fmaf(scores[2 * i + h], value_pair[i].y, offset[h]);
    }
    add_values(values, weights[0], weights[1]);
  }

  /// In the end: every lane has its heads' totals, and the sums are of numbers.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      total[h] = Sums::over_rows(total[h]);
      const float all = Sums::over_rows(offset[h]);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        sum[tile][h] = fmaf(sum[tile][h], unit, all);
        sum[tile][h + 2] = fmaf(sum[tile][h + 2], unit, all);
      }
    }
  }

 private:
  /// Over the four lanes of a row: the sum, or the largest.
  template <bool kSum>
  static __device__ __forceinline__ float over_columns(float value) {
#pragma unroll
    for (int offset = 1; offset < 4; offset *= 2) {
      const float other = __shfl_xor_sync(kAllLanes, value, offset);
      value = kSum ? value + other : fmaxf(value, other);
    }
    return value;
  }

  __device__ __forceinline__ void multiply_keys(const std::byte* keys, float (&scores)[4]) const {
    float even[4] = {};
    float odd[4] = {};
#pragma unroll
    for (int span = 0; span < kVectors; ++span) {
      const int at = code_bytes(kCodes, element<kKeyCodes>(span * 64 + column * kKeyCodes));
      KeyWords low;
      KeyWords high;
      low.read(keys + row * row_bytes() + at);
      high.read(keys + (row + 8) * row_bytes() + at);
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const std::uint32_t a[4] = {low.pair(2 * step), high.pair(2 * step), low.pair(2 * step + 1),
                                    high.pair(2 * step + 1)};
        const std::uint32_t(&b)[2] = q[span * 4 + step];
        multiply_add<__half>(step % 2 == 0 ? even : odd, a, b[0], b[1]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[i] = even[i] + odd[i];
  }

  /// To a power of two that no scale of the warp's tokens passes, where that is finite.
  __device__ __forceinline__ void raise_unit(float scale) {
    const float most = fminf(fmaxf(warp_max(scale), unit), 65504.0F);
    const float raised = __uint_as_float((__float_as_uint(most) & 0x7F800000U) + (1U << 23));
    const float factor = unit / raised;
    unit = raised;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (float& each : sum[tile]) each *= factor;
    }
  }

  /// weights of tokens 0 to 7 and 8 to 15, times their scales.
  __device__ __forceinline__ void add_values(const std::byte* values, std::uint32_t low_weights,
                                             std::uint32_t high_weights) {
    ValueWords words[4];  // of tokens 2 * column, the next, and those eight later
    const int at = code_bytes(kCodes, element<kValueCodes>(row * kValueCodes));
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i].read(values + (2 * column + i % 2 + i / 2 * 8) * row_bytes() + at);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int upper = tile + kValueCodes / 2;
      const std::uint32_t a[4] = {words[0].pair_with(words[1], tile), words[0].pair_with(words[1], upper),
                                  words[2].pair_with(words[3], tile), words[2].pair_with(words[3], upper)};
      multiply_add<__half>(sum[tile], a, low_weights, high_weights);
    }
  }
};

}  // namespace lanner::ops::cuda
