#pragma once
// What a warp does with its tokens of a page of attention_pages.cuh: scores, softmax and weighted values of all query
// heads of a KV head, by the tensor cores (mma.m16n8k16).
//
// Tokens are the rows of both products, so that up to eight heads cost what one costs:
//   scores   keys (16 tokens, head_dim) · queries (head_dim, 8 heads)
//   values   valuesᵀ (head_dim, 16 tokens) · weights (16 tokens, 8 heads)
// Pages lie in shared memory as they do in the cache, row behind row, and a lane reads 16 bytes of a row at a time: the
// order of the elements within a product is as it falls, the same for both operands. With it eight neighbouring lanes
// meet in a bank twice for keys and four times for values; that is half of what shared memory gives at the full speed
// of the device's, and needs no copy in another layout.
//
// Weights are relative to a score that follows the largest one: it is raised only when some score is kSlack beyond it,
// so that most pages need no look across the warp (powers of two up to 2^kSlack have room in fp16).

#include "ops/cuda/attention_rows.cuh"

namespace lanner::ops::cuda {

inline constexpr float kLog2E = 1.4426950F;
inline constexpr int kWarpTokens = 16;  // of a page, for each warp
inline constexpr float kSlack = 8;
inline constexpr float kNoScore = -1e30F;  // below all, and no infinity, whose difference from itself is not a number

/// What a warp's tile of tokens is a part of.
struct TileContext {
  int first;      // position of the tile's first token
  int first_key;  // positions first_key..end - 1 are seen
  int end;
  int tokens;  // of the row's context

  __device__ __forceinline__ bool sees(int token) const { return first + token >= first_key && first + token < end; }
  __device__ __forceinline__ bool is_whole() const { return first >= first_key && first + kWarpTokens <= end; }
};

__device__ __forceinline__ std::uint32_t transposed(std::uint32_t word) {
  std::uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(word));
  return result;
}

/// The pair of a's and b's lower halves, or of their upper ones.
__device__ __forceinline__ std::uint32_t pair_of(std::uint32_t a, std::uint32_t b, bool upper) {
  return __byte_perm(a, b, upper ? 0x7632 : 0x5410);
}

/// The running softmax of a warp's tokens, and its sums of weighted values. kVectors: of 64 elements, for the head.
/// A lane holds heads 2 * (lane % 4) and the next, of tokens or of elements by lane / 4.
template <int kVectors>
struct PageSums {
  static constexpr int kDims = 64 * kVectors;
  static constexpr int kTiles = kDims / 16;  // of elements
  float sum[kTiles][4] = {};
  float origin[2] = {kNoScore, kNoScore};  // times log2(e)
  float total[2] = {0, 0};                 // of this lane's weights
  int row = static_cast<int>(threadIdx.x) % kWarp / 4;
  int column = static_cast<int>(threadIdx.x) % 4;

  /// Scale, cap and slope, and the logarithm's base.
  __device__ __forceinline__ void shape(const AttentionWork& work, const TileContext& tile, int first_head, int heads,
                                        float (&scores)[4]) const {
    const bool plain = work.soft_cap == 0 && work.slopes == nullptr;
    const float factor = plain ? work.scale * kLog2E : work.scale;
#pragma unroll
    for (float& score : scores) score *= factor;
    if (plain) return;
    if (work.soft_cap != 0) each_in_turn(scores, [&](float score) { return capped(score, work.soft_cap); });
    if (work.slopes != nullptr) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int head = 2 * column + i % 2;
        const auto distance = static_cast<float>(tile.first + row + i / 2 * 8 - tile.tokens + 1);
        if (head < heads) scores[i] = fmaf(__ldg(work.slopes + first_head + head), distance, scores[i]);
      }
    }
#pragma unroll
    for (float& score : scores) score *= kLog2E;
  }

  __device__ __forceinline__ void hide_unseen(const TileContext& tile, float (&scores)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!tile.sees(row + i / 2 * 8)) scores[i] = -INFINITY;
    }
  }

  /// From scores to weights. raised(head, factor): what is relative to the score of this lane's head has to be brought
  /// along.
  template <typename Raised>
  __device__ __forceinline__ void weigh(float (&scores)[4], const Raised& raised) {
    bool beyond = false;
#pragma unroll
    for (int i = 0; i < 4; ++i) beyond = beyond || scores[i] > origin[i % 2] + kSlack;
    if (__any_sync(kAllLanes, beyond)) raise_origin(scores, raised);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scores[i] = exp2f(scores[i] - origin[i % 2]);
      total[i % 2] += scores[i];
    }
  }

  /// The sum over the lanes of a head.
  static __device__ __forceinline__ float over_rows(float value) {
#pragma unroll
    for (int offset = 4; offset < kWarp; offset *= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
    return value;
  }

 private:
  template <typename Raised>
  __device__ __forceinline__ void raise_origin(const float (&scores)[4], const Raised& raised) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float most = fmaxf(origin[h], fmaxf(scores[h], scores[h + 2]));
#pragma unroll
      for (int offset = 4; offset < kWarp; offset *= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, offset));
      const float factor = exp2f(origin[h] - most);
      origin[h] = most;
      total[h] *= factor;
      raised(h, factor);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        sum[tile][h] *= factor;
        sum[tile][h + 2] *= factor;
      }
    }
  }
};

/// Of keys and values in 16 bits. kWhole: there are as many elements as fit.
template <typename T, int kVectors, bool kWhole>
struct PageWarp : PageSums<kVectors> {
  using Sums = PageSums<kVectors>;
  using Sums::column;
  using Sums::kDims;
  using Sums::kTiles;
  using Sums::row;
  using Sums::sum;
  static constexpr int kSpans = kDims / 32;  // of 32 elements: two steps of the product with the keys
  std::uint32_t q[kSpans][4];
  int given_dim;

  __device__ __forceinline__ int head_dim() const { return kWhole ? kDims : given_dim; }
  /// Elements behind the head's last one count nothing: what is read instead only has to be there.
  __device__ __forceinline__ int element(int wanted) const {
    return kWhole ? wanted : min(wanted, given_dim - kVector);
  }
  /// Of element tile `tile`: that of sums 0 and 1, or of 2 and 3.
  __device__ __forceinline__ int element_of(int tile, bool upper) const {
    return kVectors == 2 ? (upper ? 64 : 0) + row * kVector + tile : row * kVector + tile + (upper ? kVector / 2 : 0);
  }

  __device__ void load_queries(const AttentionWork& work, int query_row, int first_head, int heads) {
    given_dim = work.head_dim;
    const float* from = work.q + (static_cast<std::int64_t>(query_row) * work.heads + first_head + row) * work.head_dim;
#pragma unroll
    for (int span = 0; span < kSpans; ++span) {
      const int at = span * 32 + column * kVector;
      float4 a = {0, 0, 0, 0};
      float4 b = {0, 0, 0, 0};
      if (row < heads && at < work.head_dim) {
        a = load_fresh(reinterpret_cast<const float4*>(from + at));
        b = load_fresh(reinterpret_cast<const float4*>(from + at) + 1);
      }
      q[span][0] = rounded_word<T>(a.x, a.y), q[span][1] = rounded_word<T>(a.z, a.w);
      q[span][2] = rounded_word<T>(b.x, b.y), q[span][3] = rounded_word<T>(b.z, b.w);
    }
  }

  /// keys, values: of the tile's first token.
  __device__ __forceinline__ void take(const AttentionWork& work, const TileContext& tile, const T* keys, T* values,
                                       int first_head, int heads) {
    const bool whole = tile.is_whole();
    float scores[4];
    multiply_keys(keys, scores);
    this->shape(work, tile, first_head, heads, scores);
    if (!whole) [[unlikely]] {
      this->hide_unseen(tile, scores);
      clear_unseen(tile, values);
    }
    this->weigh(scores, [](int, float) {});
    const std::uint32_t first = transposed(rounded_word<T>(scores[0], scores[1]));
    const std::uint32_t second = transposed(rounded_word<T>(scores[2], scores[3]));
    add_values(values, first, second);
  }

  /// In the end: every lane has its heads' totals.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (float& each : this->total) each = Sums::over_rows(each);
  }

 private:
  static __device__ __forceinline__ uint4 read(const T* place) { return *reinterpret_cast<const uint4*>(place); }

  __device__ __forceinline__ void multiply_keys(const T* keys, float (&scores)[4]) const {
    float even[4] = {};
    float odd[4] = {};
#pragma unroll
    for (int span = 0; span < kSpans; ++span) {
      const int at = element(span * 32 + column * kVector);
      const uint4 low = read(keys + row * head_dim() + at);
      const uint4 high = read(keys + (row + 8) * head_dim() + at);
      const std::uint32_t a[4] = {low.x, high.x, low.y, high.y};
      const std::uint32_t b[4] = {low.z, high.z, low.w, high.w};
      multiply_add<T>(even, a, q[span][0], q[span][1]);
      multiply_add<T>(odd, b, q[span][2], q[span][3]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[i] = even[i] + odd[i];
  }

  /// A weight of zero does not help against what is not a number.
  __device__ __forceinline__ void clear_unseen(const TileContext& tile, T* values) const {
    const int vectors = head_dim() / kVector;
    for (int i = static_cast<int>(threadIdx.x) % kWarp; i < kWarpTokens * vectors; i += kWarp) {
      if (tile.sees(i / vectors)) continue;
      *reinterpret_cast<uint4*>(values + i * kVector) = make_uint4(0, 0, 0, 0);
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // the next page is copied here
    __syncwarp();
  }

  /// weights of tokens 0 to 7 and 8 to 15.
  __device__ __forceinline__ void add_values(const T* values, std::uint32_t low_weights, std::uint32_t high_weights) {
    std::uint32_t words[kVectors][4][4];  // of tokens 2 * column, the next, and those eight later
#pragma unroll
    for (int vector = 0; vector < kVectors; ++vector) {
      const int at = element(vector * 64 + row * kVector);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint4 v = read(values + (2 * column + i % 2 + i / 2 * 8) * head_dim() + at);
        words[vector][i][0] = v.x, words[vector][i][1] = v.y, words[vector][i][2] = v.z, words[vector][i][3] = v.w;
      }
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const auto pair = [&](int token, bool upper) {
        const int vector = kVectors == 2 && upper ? 1 : 0;
        const int at = tile + (kVectors == 1 && upper ? kVector / 2 : 0);
        return pair_of(words[vector][token][at / 2], words[vector][token + 1][at / 2], at % 2 != 0);
      };
      const std::uint32_t a[4] = {pair(0, false), pair(0, true), pair(2, false), pair(2, true)};
      multiply_add<T>(sum[tile], a, low_weights, high_weights);
    }
  }
};

}  // namespace lanner::ops::cuda
