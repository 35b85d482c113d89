// Attention: who takes which rows, and the adding up of pieces.
//
// merge_pieces: a block takes one row and head, a thread one element; pieces are few, so that the cost is the launch.

#include "ops/cuda/attention.h"

#include <algorithm>
#include <iterator>

#include "ops/cuda/device.cuh"
#include "ops/cuda/tensor_map.h"
#include "ops/cuda/widen_kv.h"

namespace lanner::ops::cuda {
namespace {

constexpr std::int64_t kMostTileHeads = 8;  // query heads that a block of attention_rows.cuh takes
constexpr std::int64_t kMostTogether = 8;   // blocks of a cluster on every device that has them
constexpr std::int64_t kLongPiece = 512;    // tokens: from here on more blocks are worth a launch to add up

__global__ void merge_pieces(const __grid_constant__ AttentionWork work, const __grid_constant__ AttentionRows rows) {
  wait_for_previous();
  let_next_start();
  const int row = rows.decode_rows[blockIdx.x].row;
  const int tokens = rows.decode_rows[blockIdx.x].tokens;
  if (row < 0) return;
  const int first_key = work.window == 0 ? 0 : max(0, tokens - work.window);
  const int base = first_key / static_cast<int>(kAttentionChunk) * static_cast<int>(kAttentionChunk);
  const int pieces = (tokens - base + rows.piece_tokens - 1) / rows.piece_tokens;
  const std::int64_t head = blockIdx.y;
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * work.heads + head) * rows.partials;
  const int element = static_cast<int>(threadIdx.x);
  float largest = -INFINITY;
  for (int piece = 0; piece < pieces; ++piece) {
    largest = fmaxf(largest, load_fresh(rows.partial_sums + first + piece).x);
  }
  float sum = 0;
  float value = 0;
  for (int piece = 0; piece < pieces; ++piece) {
    const float2 part = load_fresh(rows.partial_sums + first + piece);
    const float factor = expf(part.x - largest);
    sum = fmaf(part.y, factor, sum);
    value = fmaf(load_fresh(rows.partial_values + (first + piece) * work.head_dim + element), factor, value);
  }
  store_operand(work.out_format, work.out,
                (static_cast<std::int64_t>(row) * work.heads + head) * work.head_dim + element, value / sum);
}

bool has_tiles(const KernelContext& context, const KvLayout& layout) {
  if (context.deterministic || layout.dtype == DType::kF32) return false;
  if (layout.codes != KvCodes::kNone && code_tile_shared_bytes(layout.head_dim) > context.shared_bytes) return false;
  return std::ranges::find(kTileHeadDims, layout.head_dim) != std::end(kTileHeadDims);
}

cudaError_t attend_rows(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  if (work.codes == KvCodes::kInt8) return attend_rows_int8(context, work, rows);
  if (work.codes == KvCodes::kInt4) return attend_rows_int4(context, work, rows);
  switch (work.dtype) {
    case DType::kF32: return attend_rows_float32(context, work, rows);
    case DType::kF16: return attend_rows_float16(context, work, rows);
    case DType::kBF16: return attend_rows_bfloat16(context, work, rows);
    default: return cudaErrorInvalidValue;
  }
}

bool has_room_for_pages(const KernelContext& context) {
  return context.clusters && context.shared_bytes >= kPagesSharedBytes;
}

bool has_pages(const KernelContext& context, std::int64_t heads, const KvLayout& layout) {
  constexpr std::int64_t kCopiedBytes = 16;
  return has_room_for_pages(context) && !context.deterministic && layout.dtype != DType::kF32 &&
         layout.head_dim <= 128 && layout.head_dim * layout.number_bits() / 8 % kCopiedBytes == 0 &&
         heads / layout.kv_heads <= kProductHeads;
}

cudaError_t attend_pages(const KernelContext& context, const AttentionWork& work, const AttentionRows& rows) {
  if (work.codes == KvCodes::kInt8) return attend_pages_int8(context, work, rows);
  if (work.codes == KvCodes::kInt4) return attend_pages_int4(context, work, rows);
  return work.dtype == DType::kF16 ? attend_pages_float16(context, work, rows)
                                   : attend_pages_bfloat16(context, work, rows);
}

std::int64_t partial_bytes(std::int64_t places, std::int64_t head_dim) {
  return round_up(places * head_dim * 4, 256) + places * 8;
}

AttentionWork work_of(const DeviceAttention& args, const DeviceBatch& batch, const KvCacheView& cache) {
  const KvLayout& layout = cache.layout;
  return {.q = args.q,
          .out = args.out,
          .out_format = args.out_format,
          .slopes = args.alibi_slopes,
          .cache = cache.head(0, args.layer, 0),
          .block_bytes = layout.block_bytes(),
          .head_bytes = layout.head_bytes(),
          .slices = batch.slices,
          .row_slice = batch.row_slice,
          .blocks = batch.blocks,
          .heads = static_cast<std::int32_t>(args.heads),
          .kv_heads = static_cast<std::int32_t>(layout.kv_heads),
          .head_dim = static_cast<std::int32_t>(layout.head_dim),
          .dtype = layout.dtype,
          .codes = layout.codes,
          // Wider than any context is none: positions are 32 bits.
          .window = args.window > batch.max_context ? 0 : static_cast<std::int32_t>(args.window),
          .scale = args.scale,
          .soft_cap = args.soft_cap};
}

/// Of a block's keys and values of the layer.
std::int64_t widened_block_bytes(const AttentionWork& work) { return work.kv_heads * widened_kv_bytes(work.head_dim); }

/// Of those that have tiles. Codes are widened first, if what the step's prompts look at has room.
bool has_groups(const KernelContext& context, const AttentionWork& work, const DeviceBatch& batch) {
  if (context.maps == nullptr || work.head_dim > 128) return false;
  return work.codes == KvCodes::kNone ||
         batch.prefill_block_count * widened_block_bytes(work) <= context.scratch.product_bytes;
}

cudaError_t attend_tiles(const KernelContext& context, const AttentionWork& work, const DeviceBatch& batch) {
  const bool half = work.dtype == DType::kF16;
  const auto attend = work.codes != KvCodes::kNone ? (half ? attend_code_tiles_float16 : attend_code_tiles_bfloat16)
                                                   : (half ? attend_tiles_float16 : attend_tiles_bfloat16);
  return attend(context, work, batch.prefill_tiles, batch.prefill_count);
}

/// `bytes`: of the cache, from work.cache on.
cudaError_t attend_groups(const KernelContext& context, const AttentionWork& work, const DeviceBatch& batch,
                          std::int64_t bytes) {
  const std::int64_t row_bytes = work.head_dim * 2;
  GroupLaunch args = {
      .work = work, .tiles = batch.prefill_tiles, .count = batch.prefill_count, .cache = {}, .rows = {}};
  args.rows = {.of_block = static_cast<std::int32_t>(work.block_bytes / row_bytes),
               .of_head = static_cast<std::int32_t>(work.head_bytes / row_bytes)};
  BoxedMatrix matrix = {.place = work.cache,
                        .format = work.dtype == DType::kF16 ? WeightFormat::kF16 : WeightFormat::kBF16,
                        .dimensions = 2};
  matrix.size[0] = static_cast<std::uint64_t>(work.head_dim);
  matrix.size[1] = static_cast<std::uint64_t>(bytes / row_bytes);
  matrix.stride[1] = static_cast<std::uint64_t>(row_bytes);
  matrix.box[0] = 64;
  matrix.box[1] = kKvBlockTokens;
  LANNER_RETURN_IF_CUDA_ERROR(context.maps->encode(matrix, &args.cache));
  return work.dtype == DType::kF16 ? attend_groups_float16(context, args) : attend_groups_bfloat16(context, args);
}

/// The same over codes: what the prompts look at becomes a 16-bit cache of one layer, in the room of products, for
/// which attention has no other use.
cudaError_t attend_widened(const KernelContext& context, const AttentionWork& work, const DeviceBatch& batch) {
  LANNER_RETURN_IF_CUDA_ERROR(widen_prompts(context, work, batch, context.scratch.product));
  AttentionWork widened = work;
  widened.cache = context.scratch.product;
  widened.block_bytes = widened_block_bytes(work);
  widened.head_bytes = widened_kv_bytes(work.head_dim);
  widened.blocks = batch.prefill_places;
  widened.codes = KvCodes::kNone;
  return attend_groups(context, widened, batch, batch.prefill_block_count * widened.block_bytes);
}

}  // namespace

std::int64_t attention_partial_bytes(int multiprocessors, std::int64_t heads, std::int64_t kv_heads,
                                     std::int64_t head_dim) {
  // plan_attention() stops cutting at two blocks a multiprocessor, so that there are fewer than four of them.
  const std::int64_t places = 4LL * multiprocessors * std::min(heads / kv_heads, kMostTileHeads);
  return partial_bytes(std::max(places, kMostPiecePlaces * heads), head_dim);
}

AttentionPlan plan_attention(const KernelContext& context, std::int64_t heads, const DeviceBatch& batch,
                             const KvLayout& layout, std::int64_t window) {
  AttentionPlan plan = {.tiles = has_tiles(context, layout), .partials = 1, .piece_tokens = 0};
  if (batch.decode_count == 0 || context.deterministic) return plan;
  const std::int64_t blocks = batch.decode_count * layout.kv_heads * ceil_div(heads / layout.kv_heads, kMostTileHeads);
  const std::int64_t enough = 2LL * context.multiprocessors;
  std::int64_t span = batch.max_context;  // tokens that pieces have to cover: the window, from a chunk's border on
  if (window != 0) span = std::min(span, window + kAttentionChunk - 1);
  // What does not run at once is not worth adding up.
  const std::int64_t many =
      has_pages(context, heads, layout) ? context.multiprocessors / blocks : ceil_div(enough, blocks);
  const std::int64_t wanted = std::min({many, ceil_div(span, kKvBlockTokens), kMaxPartials});
  if (blocks >= enough || wanted <= 1) return plan;
  if (context.clusters && (wanted <= kMostTogether || span <= kMostTogether * kLongPiece)) {
    plan.partials = 2;
    while (plan.partials < std::min(wanted, kMostTogether)) plan.partials *= 2;
    plan.piece_tokens = static_cast<std::int32_t>(round_up(ceil_div(span, plan.partials), kKvBlockTokens));
    plan.together = true;
    return plan;
  }
  const std::int64_t piece = round_up(ceil_div(span, wanted), kKvBlockTokens);
  const std::int64_t partials = ceil_div(span, piece);
  if (partial_bytes(batch.decode_count * heads * partials, layout.head_dim) > context.scratch.partial_bytes)
    return plan;
  plan.partials = static_cast<std::int32_t>(partials);
  plan.piece_tokens = static_cast<std::int32_t>(piece);
  return plan;
}

cudaError_t attention(const KernelContext& context, const DeviceAttention& args, const DeviceBatch& batch,
                      const KvCacheView& cache) {
  const AttentionWork work = work_of(args, batch, cache);
  const AttentionPlan plan = plan_attention(context, args.heads, batch, cache.layout, work.window);
  if (batch.decode_count > 0) {
    const bool pages = has_pages(context, args.heads, cache.layout);
    AttentionRows rows = {.decode_rows = batch.decode_rows,
                          .decode_count = batch.decode_count,
                          .max_context = batch.max_context,
                          .partials = plan.partials,
                          .piece_tokens = plan.piece_tokens,
                          .together = plan.together};
    std::int64_t places = batch.decode_count * args.heads * plan.partials;
    if (pages && plan.partials == 1) {
      rows.pieces = batch.decode_pieces;
      rows.piece_count = batch.piece_count;
      rows.arrivals = context.scratch.arrivals;
      places = kMostPiecePlaces * args.heads;
      if (partial_bytes(places, work.head_dim) > context.scratch.partial_bytes) return cudaErrorInvalidValue;
    }
    rows.partial_values = reinterpret_cast<float*>(context.scratch.partials);
    rows.partial_sums = reinterpret_cast<float2*>(context.scratch.partials + round_up(places * work.head_dim * 4, 256));
    LANNER_RETURN_IF_CUDA_ERROR(pages ? attend_pages(context, work, rows) : attend_rows(context, work, rows));
    if (plan.partials > 1 && !plan.together) {
      const dim3 grid(static_cast<unsigned>(batch.decode_count), static_cast<unsigned>(args.heads));
      LANNER_RETURN_IF_CUDA_ERROR(launch(context, merge_pieces, grid, work.head_dim, 0, work, rows));
    }
  }
  if (batch.prefill_count == 0) return cudaSuccess;
  if (!plan.tiles) {
    return attend_rows(context, work,
                       {.prefill_tiles = batch.prefill_tiles, .prefill_count = batch.prefill_count, .partials = 1});
  }
  if (!has_groups(context, work, batch)) return attend_tiles(context, work, batch);
  if (work.codes != KvCodes::kNone) return attend_widened(context, work, batch);
  return attend_groups(context, work, batch, cache.data + cache.blocks * work.block_bytes - work.cache);
}

cudaError_t prepare_attention(const KernelContext& context) {
  if (has_room_for_pages(context)) {
    LANNER_RETURN_IF_CUDA_ERROR(prepare_pages_float16());
    LANNER_RETURN_IF_CUDA_ERROR(prepare_pages_bfloat16());
    LANNER_RETURN_IF_CUDA_ERROR(prepare_pages_int8());
    LANNER_RETURN_IF_CUDA_ERROR(prepare_pages_int4());
  }
  LANNER_RETURN_IF_CUDA_ERROR(prepare_tiles_float16());
  LANNER_RETURN_IF_CUDA_ERROR(prepare_tiles_bfloat16());
  LANNER_RETURN_IF_CUDA_ERROR(prepare_code_tiles_float16(context));
  return prepare_code_tiles_bfloat16(context);
}

}  // namespace lanner::ops::cuda
