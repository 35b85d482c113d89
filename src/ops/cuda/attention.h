#pragma once
// The bodies of attention: row by row, and in tiles of query rows.

#include <cuda.h>
#include <cuda_runtime.h>

#include "ops/cuda/kernels.h"

namespace lanner::ops::cuda {

/// What both bodies know of the operation.
struct AttentionWork {
  const float* q;  // (rows, heads, head_dim)
  float* out;
  WeightFormat out_format;  // kF32, or the type of the product that reads it
  const float* slopes;      // (heads) or null
  const std::byte* cache;   // of the layer: KvCacheView::head(0, layer, 0)
  std::int64_t block_bytes;
  std::int64_t head_bytes;
  const DeviceSlice* slices;
  const std::int32_t* row_slice;
  const std::int32_t* blocks;
  std::int32_t heads;
  std::int32_t kv_heads;
  std::int32_t head_dim;
  DType dtype;
  KvCodes codes;
  std::int32_t window;  // 0: none
  float scale;
  float soft_cap;
};

/// The rows of `decode_rows`, each cut into `partials` pieces of `piece_tokens`, or into those of `pieces`, where there
/// are such; or, where decode_count is 0, those of `prefill_tiles`, whole.
struct AttentionRows {
  const DecodeRow* decode_rows = nullptr;
  std::int32_t decode_count = 0;
  std::int32_t max_context = 0;  // of them, at least
  const DecodePiece* pieces = nullptr;
  std::int32_t piece_count = 0;
  std::int32_t* arrivals = nullptr;  // (kMostPiecePlaces, KV heads): zeros
  const PrefillTile* prefill_tiles = nullptr;
  std::int32_t prefill_count = 0;
  std::int32_t partials = 1;
  std::int32_t piece_tokens = 0;
  std::int32_t stages = 0;          // of the rings of attention_pages.cuh
  bool together = false;            // the pieces' blocks are a cluster, and no partials are written
  float* partial_values = nullptr;  // (decode_count, heads, partials, head_dim), or (kMostPiecePlaces, heads, head_dim)
  float2* partial_sums = nullptr;   // the same without head_dim: largest score and sum
};
cudaError_t attend_rows_float32(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows);
cudaError_t attend_rows_float16(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows);
cudaError_t attend_rows_bfloat16(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows);
cudaError_t attend_rows_int8(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows);
cudaError_t attend_rows_int4(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows);

/// Head sizes that have tiles of query rows, and those of them that the warpgroups of Hopper take.
inline constexpr std::int64_t kTileHeadDims[] = {64, 80, 96, 128, 256};
inline constexpr std::int64_t kGroupHeadDims[] = {64, 80, 96, 128};

/// visit.operator()<head_dim>(), of kGroupHeadDims.
template <typename Visit>
cudaError_t with_group_head_dim(std::int64_t head_dim, const Visit& visit) {
  switch (head_dim) {
    case 64: return visit.template operator()<64>();
    case 80: return visit.template operator()<80>();
    case 96: return visit.template operator()<96>();
    case 128: return visit.template operator()<128>();
    default: return cudaErrorInvalidValue;
  }
}
/// The same of kTileHeadDims.
template <typename Visit>
cudaError_t with_tile_head_dim(std::int64_t head_dim, const Visit& visit) {
  return head_dim == 256 ? visit.template operator()<256>() : with_group_head_dim(head_dim, visit);
}

/// Caches of fp16 and bf16 with a head_dim of kTileHeadDims.
cudaError_t attend_tiles_float16(const KernelContext& context, const AttentionWork& work, const PrefillTile* tiles,
                                 std::int32_t count);
cudaError_t attend_tiles_bfloat16(const KernelContext& context, const AttentionWork& work, const PrefillTile* tiles,
                                  std::int32_t count);
cudaError_t prepare_tiles_float16();
cudaError_t prepare_tiles_bfloat16();

/// Caches in codes with the same head_dim, whose numbers are rounded to fp16 or bf16, on devices with so much shared
/// memory for a block.
constexpr int code_tile_shared_bytes(std::int64_t head_dim) {
  constexpr int kTokens = static_cast<int>(kKvBlockTokens);
  const int numbers = kTokens * static_cast<int>(head_dim + 8) * 2;  // queries, keys or values
  return 3 * numbers + 2 * kTokens * static_cast<int>(head_dim + kKvParameterBytes);
}
cudaError_t attend_code_tiles_float16(const KernelContext& context, const AttentionWork& work, const PrefillTile* tiles,
                                      std::int32_t count);
cudaError_t attend_code_tiles_bfloat16(const KernelContext& context, const AttentionWork& work,
                                       const PrefillTile* tiles, std::int32_t count);
cudaError_t prepare_code_tiles_float16(const KernelContext& context);
cudaError_t prepare_code_tiles_bfloat16(const KernelContext& context);

/// The cache's rows as the map sees them, from the layer's first one on.
struct CacheRows {
  std::int32_t of_block;
  std::int32_t of_head;  // keys and values
};

/// Tiles for the warpgroups of Hopper.
struct GroupLaunch {
  AttentionWork work;
  const PrefillTile* tiles;
  std::int32_t count;
  CUtensorMap cache;
  CacheRows rows;
};

/// Caches of fp16 and bf16 with head_dim 64, 80, 96 or 128, on devices that have KernelContext::maps.
cudaError_t attend_groups_float16(const KernelContext& context, const GroupLaunch& args);
cudaError_t attend_groups_bfloat16(const KernelContext& context, const GroupLaunch& args);
cudaError_t prepare_groups_float16();
cudaError_t prepare_groups_bfloat16();

/// Decoding rows over caches of fp16 and bf16, or in codes whose rows are multiples of 16 bytes, with head_dim of up to
/// 128 and up to kProductHeads query heads of a KV head, on devices with clusters and so much shared memory for a
/// block.
inline constexpr std::int64_t kProductHeads = 8;
inline constexpr int kPagesSharedBytes = 116 * 1024;
cudaError_t attend_pages_float16(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows);
cudaError_t attend_pages_bfloat16(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows);
cudaError_t attend_pages_int8(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows);
cudaError_t attend_pages_int4(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows);
cudaError_t prepare_pages_float16();
cudaError_t prepare_pages_bfloat16();
cudaError_t prepare_pages_int8();
cudaError_t prepare_pages_int4();

cudaError_t prepare_attention(const KernelContext& context);

}  // namespace lanner::ops::cuda
