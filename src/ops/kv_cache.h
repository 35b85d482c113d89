#pragma once
// The paged cache of keys and values.
//
// A block holds kKvBlockTokens tokens of one sequence, for all layers and KV heads. Blocks are handed out by the
// engine; how the bytes of a block are arranged is the backend's affair. Numbers are rounded to `dtype`, or to codes,
// when they are written, after RoPE, and attention reads them as the cache holds them, in prefill and in decode alike.
//
// CODES. Of one token and KV head, a key and a value for itself: the numbers x (head_dim) are codes of 8 or 4 bits that
// count steps from the smallest, x = code * scale + min. scale = (largest - smallest) / (2^bits - 1) and min = smallest
// are rounded to fp16 first, whatever `dtype` is, and code = round((x - min) / scale), to nearest even, within
// [0, 2^bits - 1]; where the scale has become 0 every code stands for min. One number that is not finite makes the
// scale NaN, so that none of them passes for a number.

#include <cstdint>

#include "core/dtype.h"

namespace lanner::ops {

inline constexpr std::int64_t kKvBlockTokens = 64;

enum class KvCodes : std::uint8_t { kNone, kInt8, kInt4 };

inline constexpr std::int64_t kKvParameterBytes = 4;  // of a token's key, or value, in codes: scale and min

struct KvLayout {
  std::int64_t layers = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  DType dtype = DType::kF16;  // kF32, kF16 or kBF16. With codes only what attention may round to meanwhile
  KvCodes codes = KvCodes::kNone;

  std::int64_t number_bits() const {
    if (codes == KvCodes::kNone) return 8 * dtype_bytes(dtype);
    return codes == KvCodes::kInt8 ? 8 : 4;
  }
  /// Of a block's keys, or values, of one head, without scales.
  std::int64_t numbers_bytes() const { return kKvBlockTokens * head_dim * number_bits() / 8; }
  /// Of their scales and mins, which lie behind keys and values, those of the keys before those of the values.
  std::int64_t parameters_bytes() const { return codes == KvCodes::kNone ? 0 : kKvBlockTokens * kKvParameterBytes; }
  std::int64_t head_bytes() const { return 2 * (numbers_bytes() + parameters_bytes()); }  // K and V
  std::int64_t layer_bytes() const { return kv_heads * head_bytes(); }
  std::int64_t block_bytes() const { return layers * layer_bytes(); }
};

/// The pool: `blocks` blocks of layout.block_bytes(), in the backend's memory.
struct KvCacheView {
  KvLayout layout;
  std::byte* data = nullptr;
  std::int64_t blocks = 0;

  std::byte* head(std::int64_t block, std::int64_t layer, std::int64_t kv_head) const {
    return data + block * layout.block_bytes() + layer * layout.layer_bytes() + kv_head * layout.head_bytes();
  }
};

}  // namespace lanner::ops
