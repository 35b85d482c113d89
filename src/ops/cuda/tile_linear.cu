// Which products take the tiles of tile_linear.cuh, and how they are cut.

#include "ops/cuda/tile_linear.h"

#include <algorithm>
#include <bit>

#include "ops/cuda/attention.h"
#include "ops/cuda/device.cuh"
#include "ops/cuda/tensor_map.h"
#include "ops/cuda/tile_plan.h"
#include "ops/cuda/warpgroup.cuh"

namespace lanner::ops::cuda {
namespace {

constexpr std::int32_t kMostBlocks = 8;         // of a cluster
constexpr std::int32_t kLeastPairTokens = 128;  // below, waiting for each other costs a pair more than it saves
constexpr std::int32_t kLeastRows = 80;         // of a tile of heads: below, too much of it is wasted

/// 1 where the kernels' instructions exist: code for another architecture holds another value.
__device__ int compiled_for_warpgroups = LANNER_WARPGROUPS;

std::int32_t tiles_of(std::int64_t count, std::int64_t size) {
  return static_cast<std::int32_t>(ceil_div(count, size));
}

/// How the heads of q, k and v are cut into tiles: bands of 8 pairs. False: not well.
bool cut_heads(const HeadsOut& heads, TileWork* work) {
  const std::int32_t bands = heads.head_dim / 16;
  if (heads.head_dim % 16 != 0 || (heads.rotary_dim != 0 && heads.rotary_dim != heads.head_dim)) return false;
  work->head_bands = std::min(bands, kTileBands);
  while (bands % work->head_bands != 0) --work->head_bands;
  work->head_tiles = bands / work->head_bands;
  work->tile_heads = work->head_tiles > 1 ? 1 : kTileBands / work->head_bands;
  work->weight_tiles = tiles_of(heads.heads + 2 * heads.kv_heads, work->tile_heads) * work->head_tiles;
  return 16 * work->head_bands * work->tile_heads >= kLeastRows;
}

/// Rows of all parts; the parts lie one behind the other.
std::int32_t width_of(const FusedLinear& linear) {
  std::int32_t width = 0;
  for (int i = 0; i < linear.part_count; ++i) width += linear.parts[i].rows;
  return width;
}

/// The weight as boxes of one tile and step.
BoxedMatrix weight_boxes(const TileLinear& args, const TileWork& work) {
  const FusedLinear& linear = args.linear;
  const auto stride = static_cast<std::uint64_t>(linear.parts[0].stride);
  BoxedMatrix matrix = {.place = linear.parts[0].data, .format = args.format};
  matrix.size[0] = static_cast<std::uint64_t>(linear.cols);
  matrix.box[0] = kTileCols;
  const auto add = [&](std::int32_t dimension, std::int64_t size, std::uint64_t bytes, std::int32_t box) {
    matrix.size[dimension] = static_cast<std::uint64_t>(size);
    matrix.stride[dimension] = bytes;
    matrix.box[dimension] = static_cast<std::uint32_t>(box);
    matrix.dimensions = dimension + 1;
  };
  if (linear.finish == Finish::kGate) {
    add(1, 8, stride, 8);
    add(2, 2, stride * static_cast<std::uint64_t>(linear.parts[0].rows), 2);
    add(3, linear.parts[0].rows / 8, 8 * stride, kTileBands);
  } else if (linear.finish == Finish::kQkv) {
    const HeadsOut& heads = linear.heads;
    const auto head_dim = static_cast<std::uint64_t>(heads.head_dim);
    add(1, 8, stride, 8);
    add(2, 2, stride * head_dim / 2, 2);
    add(3, heads.head_dim / 16, 8 * stride, work.head_bands);
    add(4, heads.heads + 2 * heads.kv_heads, stride * head_dim, work.tile_heads);
  } else {
    add(1, work.width, stride, kTileRows);
  }
  return matrix;
}

BoxedMatrix input_boxes(const TileLinear& args, std::int32_t rows) {
  BoxedMatrix matrix = {.place = args.input, .format = args.format, .dimensions = 2};
  matrix.size[0] = static_cast<std::uint64_t>(args.linear.cols);
  matrix.size[1] = static_cast<std::uint64_t>(args.linear.rows);
  matrix.stride[1] = static_cast<std::uint64_t>(args.input_stride) * 2;
  matrix.box[0] = kTileCols;
  matrix.box[1] = static_cast<std::uint32_t>(rows);
  return matrix;
}

/// How many tokens a tile has, and how many blocks share its input and its steps.
struct TileCut {
  std::int32_t tokens;
  std::int32_t pair;
  std::int32_t split;
};

/// Clocks that a product takes, as far as that is known: 4096 operations a clock; 34 bytes from the second-level cache
/// where most multiprocessors ask for them, and 50 that one takes in; a tile's start and end; and 10 bytes a clock from
/// the other blocks' shared memory.
double clocks_of(const KernelContext& context, const TileWork& work, std::int64_t rows, const TileCut& cut) {
  constexpr double kCacheBytes = 34;
  constexpr double kTakenBytes = 50;
  constexpr double kClusterBytes = 10;
  const double tokens = cut.tokens;
  const std::int32_t blocks = tiles_of(work.weight_tiles, cut.pair) * cut.pair * tiles_of(rows, cut.tokens) * cut.split;
  const double waves = tiles_of(blocks, context.multiprocessors);
  const double row_bytes = kTileCols * 2;
  const double asked = blocks > context.multiprocessors / 2 ? row_bytes * (kTileRows + tokens / cut.pair) : 0;
  const double taken = row_bytes * (kTileRows + tokens);
  const double step = std::max({4 * tokens, asked / kCacheBytes, taken / kTakenBytes});
  const double sums = kTileRows * tokens * 4 * (cut.split - 1) / cut.split / kClusterBytes;
  return waves * (work.steps / static_cast<double>(cut.split) * step + sums + 1500 + 8 * tokens);
}

bool can_cut(const KernelContext& context, const TileWork& work, std::int64_t rows, const TileCut& cut) {
  const std::int32_t size = cut.pair * cut.split;
  if (cut.pair > 1 && cut.tokens < kLeastPairTokens) return false;
  if (size > kMostBlocks || work.weight_tiles < cut.pair || work.steps < 2 * cut.split) return false;
  const std::int32_t clusters = tiles_of(work.weight_tiles, cut.pair) * tiles_of(rows, cut.tokens);
  const int at_once = context.most_clusters[std::countr_zero(static_cast<unsigned>(size))];
  return cut.split == 1 ? at_once > 0 : clusters <= (cut.tokens <= 64 ? 2 : 1) * at_once;
}

TileCut cut_tiles(const KernelContext& context, const TileWork& work, std::int64_t rows) {
  TileCut best = {16, 1, 1};
  double least = clocks_of(context, work, rows, best);
  for (const std::int32_t tokens : {16, 32, 64, 128, 256}) {
    for (const std::int32_t pair : {1, 2}) {
      for (std::int32_t split = 1; split <= kMostBlocks; split *= 2) {
        const TileCut cut = {tokens, pair, split};
        if (!can_cut(context, work, rows, cut)) continue;
        const double clocks = clocks_of(context, work, rows, cut);
        if (clocks >= least) continue;
        least = clocks;
        best = cut;
      }
    }
  }
  return best;
}

}  // namespace

bool takes_tiles(const KernelContext& context, const TileLinear& args) {
  if (context.maps == nullptr || context.deterministic) return false;
  const FusedLinear& linear = args.linear;
  TileWork work = {};
  switch (linear.finish) {
    case Finish::kGate: return linear.part_count == 2 && linear.parts[0].rows % 8 == 0;
    case Finish::kQkv: return linear.part_count == 3 && cut_heads(linear.heads, &work);
    default: return true;
  }
}

cudaError_t run_tile_linear(const KernelContext& context, const TileLinear& args) {
  TilePlan plan = {};
  TileWork& work = plan.work;
  work.linear = args.linear;
  work.width = width_of(args.linear);
  const bool narrow = args.linear.finish == Finish::kGateAlone && args.linear.out_format != WeightFormat::kF32;
  const std::int64_t unit = narrow ? 8 : 4;  // outputs of 16 bytes
  work.vectors = args.linear.finish == Finish::kGate || args.linear.finish == Finish::kQkv ||
                 (work.width % unit == 0 && args.linear.out_stride % unit == 0 &&
                  reinterpret_cast<std::uintptr_t>(args.linear.out) % 16 == 0);
  for (int i = 0; i < args.linear.part_count; ++i) work.biased = work.biased || args.linear.parts[i].bias != nullptr;
  work.biased = work.biased && args.linear.finish != Finish::kStore;
  work.steps = tiles_of(args.linear.cols, kTileCols);
  work.head_bands = work.tile_heads = work.head_tiles = 1;
  work.weight_tiles = tiles_of(work.width, kTileRows);
  work.weight_bytes = kTileRows * kTileCols * 2;
  if (args.linear.finish == Finish::kQkv) {
    if (!cut_heads(args.linear.heads, &work)) return cudaErrorInvalidValue;
    work.weight_bytes = 16 * work.head_bands * work.tile_heads * kTileCols * 2;
  }
  const TileCut cut = cut_tiles(context, work, args.linear.rows);
  plan.tokens = cut.tokens;
  work.token_tiles = tiles_of(args.linear.rows, plan.tokens);
  work.pair = cut.pair;
  work.pairs = tiles_of(work.weight_tiles, cut.pair);
  work.split = cut.split;
  const BoxedMatrix weight = weight_boxes(args, work);
  plan.weight_dimensions = weight.dimensions;
  LANNER_RETURN_IF_CUDA_ERROR(context.maps->encode(weight, &plan.weight));
  LANNER_RETURN_IF_CUDA_ERROR(context.maps->encode(input_boxes(args, plan.tokens / cut.pair), &plan.input));
  return args.format == WeightFormat::kF16 ? run_tiles_float16(context, plan) : run_tiles_bfloat16(context, plan);
}

cudaError_t prepare_warpgroups(KernelContext* context, bool* usable) {
  int compiled = 0;
  LANNER_RETURN_IF_CUDA_ERROR(cudaMemcpyFromSymbol(&compiled, compiled_for_warpgroups, sizeof(compiled)));
  *usable = compiled != 0;
  if (!*usable) return cudaSuccess;
  LANNER_RETURN_IF_CUDA_ERROR(prepare_groups_float16());
  LANNER_RETURN_IF_CUDA_ERROR(prepare_groups_bfloat16());
  LANNER_RETURN_IF_CUDA_ERROR(prepare_tile_linear_float16());
  LANNER_RETURN_IF_CUDA_ERROR(prepare_tile_linear_bfloat16());
  for (int i = 0; i < 4; ++i) {
    LANNER_RETURN_IF_CUDA_ERROR(count_tile_clusters(1 << i, &context->most_clusters[i]));
  }
  return cudaSuccess;
}

}  // namespace lanner::ops::cuda
