#pragma once
// Keys and values in codes as numbers of 16 bits, for whoever reads the same ones many times.

#include "ops/cuda/attention.h"

namespace lanner::ops::cuda {

/// Of a block's keys and values of one head.
constexpr std::int64_t widened_kv_bytes(std::int64_t head_dim) { return 2 * kKvBlockTokens * head_dim * 2; }

/// out (batch.prefill_block_count, KV heads, widened_kv_bytes()): batch.prefill_blocks of the layer in a 16-bit cache's
/// layout, rounded to work.dtype. Blocks that are behind the window of all rows of their slice stay as they are. Caches
/// in codes of fp16 and bf16 with a head_dim of kGroupHeadDims; out at a multiple of 16 bytes.
cudaError_t widen_prompts(const KernelContext& context, const AttentionWork& work, const DeviceBatch& batch,
                          std::byte* out);

}  // namespace lanner::ops::cuda
