#pragma once
// The paged cache of keys and values.
//
// A block holds kKvBlockTokens tokens of one sequence, for all layers and KV heads. Blocks are handed out by the
// engine; how the bytes of a block are arranged is the backend's affair. Values are rounded to `dtype` when they are
// written, after RoPE, and attention reads them as the cache holds them, in prefill and in decode alike.

#include <cstdint>

#include "core/dtype.h"

namespace lanner::ops {

inline constexpr std::int64_t kKvBlockTokens = 64;

struct KvLayout {
  std::int64_t layers = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  DType dtype = DType::kF16;  // kF32, kF16 or kBF16

  std::int64_t head_bytes() const { return 2 * kKvBlockTokens * head_dim * dtype_bytes(dtype); }  // K and V
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
