#pragma once
// Attention of single query rows over caches in codes on Hopper: attention_pages.cuh with pages of codes.
//
// Bound: the bytes of codes; half, or a quarter, of those of 16-bit numbers, so that unpacking them has to stay below
// the time that these take. A page is keys, values, then scales and mins of both, as they lie in the cache. Those come
// in one piece, with the page's last token: a token's own are fewer bytes than a copy takes.

#include "ops/cuda/attention_pages.cuh"
#include "ops/cuda/code_page_warp.cuh"

namespace lanner::ops::cuda {

template <KvCodes kCodes, typename PageShape>
struct CodePages {
  using Shape = PageShape;
  using Warp = CodePageWarp<kCodes, Shape::kVectors, Shape::kWhole>;
  static_assert(Shape::kTokens == kBlockTokens);

  static __host__ __device__ constexpr int stage_bytes(int head_dim) {
    return kKvRows * (head_dim * kCodeBits<kCodes> / 8) + kKvPairBytes;
  }
  /// What copies of `tokens` tokens bring.
  static __device__ __forceinline__ int copied_bytes(int head_dim, int tokens) {
    return 2 * tokens * code_bytes(kCodes, head_dim) + kKvPairBytes;
  }
  /// Asks for tokens first..end - 1 of a page, numbered from the sequence's start; rows are multiples of 16 bytes.
  static __device__ __forceinline__ void copy(const AttentionWork& work, const PageTask& task, int page, int first,
                                              int end, std::byte* stage, std::uint64_t* barrier) {
    const PageTokens tokens = page_tokens<Shape>(task, page, first, end);
    if (tokens.count() <= 0) return;
    const std::byte* head = block_head(work, task, tokens.base);
    const int row_bytes = code_bytes(kCodes, work.head_dim);
    const int values = kBlockTokens * row_bytes;
    const int skipped = tokens.first * row_bytes;
    const int bytes = tokens.count() * row_bytes;
    copy_bytes(stage + skipped, head + skipped, bytes, barrier);
    copy_bytes(stage + values + skipped, head + values + skipped, bytes, barrier);
    const bool is_last = tokens.end == min(task.end - tokens.base, Shape::kTokens);
    if (is_last) copy_bytes(stage + 2 * values, head + 2 * values, kKvPairBytes, barrier);
  }
  /// tile: of the tokens from own_token of the page on.
  static __device__ __forceinline__ void take(Warp& state, const AttentionWork& work, const TileContext& tile,
                                              const std::byte* stage, int own_token, int first_head, int heads) {
    const int row_bytes = state.row_bytes();
    const std::byte* keys = stage + own_token * row_bytes;
    const std::uint32_t* pairs = code_pair_place(stage, own_token, row_bytes);
    state.take(work, tile, keys, keys + kBlockTokens * row_bytes, pairs, pairs + kBlockTokens, first_head, heads);
  }
  /// Four blocks of three stages fit a multiprocessor.
  static std::int32_t stages_of_list(bool /*few_and_short*/) { return 3; }
};

}  // namespace lanner::ops::cuda
