#pragma once
// y = W · norm(x) and what follows, for 1 to 8 rows of x: the kernel behind every linear operation of decode.
//
// Bound: the bytes of W, read once. Everything else is arranged so that they never stop flowing.
//
// A block is 8 warps. Its input, all rows of x, lies in shared memory in fp32, times the norm's gain but not yet
// divided by the root mean square: that factor is a scalar of the row and comes after the product, so that no warp
// waits for it. (Layer norm, which also subtracts, is done before, in its own pass.) A *task* is 1 or 2 pairs of weight
// rows; the two rows of a pair are needed together: partners of the rotation, gate and up, or just neighbours. A warp
// takes tasks, each lane 16 bytes of every row per *step*, a whole step being 512 bytes of a row; eight 16-byte loads
// per lane are always in flight, the first of them asked for before the previous kernel has ended. For long rows
// `splits` warps share a task and their sums meet in shared memory, in fixed order. If x has no room in shared memory
// it goes through it in tiles, at the price of a barrier each.
//
// Order of summation of one output: a lane's columns ascending, then a tree over lanes, then over splits. Which column
// a lane takes, and the number of splits, follow from the weights' format and shape alone: the number of rows, of tiles
// and of blocks change nothing.
//
// Shared memory: the vector of 4 columns j of the E that lane L multiplies at chunk c (E: elements in 16 bytes) lies at
// c * 8E + j * 32 + (L ^ (j * 32 / E)): one conflict-free 16-byte read a lane, and nearly conflict-free writes.

#include <algorithm>

#include "ops/cuda/fused_finish.cuh"
#include "ops/cuda/fused_input.cuh"

namespace lanner::ops::cuda {

// --- the stream of weights

/// What one lane has in flight: kDepth steps of kWeightRows rows.
template <WeightFormat kFormat, int kRows>
struct WeightStream {
  using Shape = FusedShape<kFormat, kRows>;
  static constexpr int kScales = Shape::kQuantized ? 1 : 0;

  const FusedLinear& args;
  std::uint64_t policy;
  int split;
  int lane;
  const std::uint8_t* row[Shape::kWeightRows];  // null: none
  const std::uint8_t* scale_row[Shape::kQuantized ? Shape::kWeightRows : 1];
  uint4 vectors[Shape::kDepth][Shape::kWeightRows];
  uint2 scales[Shape::kQuantized ? Shape::kDepth : 1][Shape::kQuantized ? Shape::kWeightRows : 1];

  __device__ WeightStream(const FusedLinear& launch, int split_index)
      : args(launch), policy(streaming_policy()), split(split_index), lane(static_cast<int>(threadIdx.x) % kWarp) {}

  /// Loads come from this task from now on.
  __device__ void turn_to(int task) {
#pragma unroll
    for (int pair = 0; pair < Shape::kPairs; ++pair) {
      const PairRows rows = locate_pair(args, task * Shape::kPairs + pair);
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const FusedPart& part = args.parts[rows.part[side]];
        const bool exists = rows.row[side] >= 0;
        row[2 * pair + side] = exists ? part.data + rows.row[side] * part.stride : nullptr;
        if constexpr (Shape::kQuantized) {
          const std::int64_t pair_bytes = args.scale_format == ScaleFormat::kFloat ? 8 : 4;
          scale_row[2 * pair + side] = static_cast<const std::uint8_t*>(part.scales) +
                                       (exists ? rows.row[side] : 0) * (args.cols / args.group) * pair_bytes;
        }
      }
    }
  }

  __device__ __forceinline__ void load(int place, int step) {
    const int vector = (step * args.splits + split) * kWarp + lane;
    const bool inside = step < args.steps && vector < args.row_vectors;
#pragma unroll
    for (int r = 0; r < Shape::kWeightRows; ++r) {
      vectors[place][r] = make_uint4(0, 0, 0, 0);
      if (inside && row[r] != nullptr) vectors[place][r] = load_streaming(row[r] + vector * 16LL, policy);
    }
    if constexpr (Shape::kQuantized) {
      const int group = args.group_shift >= 0 ? vector >> args.group_shift : vector / args.group_vectors;
#pragma unroll
      for (int r = 0; r < Shape::kWeightRows; ++r) {
        scales[place][r] = make_uint2(0, 0);
        if (inside && row[r] != nullptr) scales[place][r] = load_scale(args.scale_format, scale_row[r], group);
      }
    }
  }
};

// --- the product

/// Multiplies what lies at `place` of the stream with the input of `chunk` (of the tile) and adds it to the sums.
template <WeightFormat kFormat, int kRows>
__device__ __forceinline__ void consume(const WeightStream<kFormat, kRows>& stream, int place,
                                        const FusedRoom<kFormat, kRows>& room, int chunk,
                                        float (&sum)[FusedShape<kFormat, kRows>::kResults]) {
  using Shape = FusedShape<kFormat, kRows>;
  constexpr int kWeightRows = Shape::kWeightRows;
  const float4* input = room.input + chunk * Shape::kChunkVectors;
  const int tile_vectors = room.tile_chunks * Shape::kChunkVectors;
  float codes[Shape::kResults];  // quantized: sum(code * x), before the scale
#pragma unroll
  for (int i = 0; i < Shape::kResults; ++i) codes[i] = 0;
#pragma unroll
  for (int j = 0; j < Shape::kFours; ++j) {
    float4 weight[kWeightRows];
#pragma unroll
    for (int r = 0; r < kWeightRows; ++r) {
      const uint4 v = stream.vectors[place][r];
      const std::uint32_t words[4] = {v.x, v.y, v.z, v.w};
      weight[r] = Decoder<kFormat>::four(words, j);
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const float4 x = input[row * tile_vectors + j * kWarp + (stream.lane ^ (j * kWarp / Shape::kElements))];
#pragma unroll
      for (int r = 0; r < kWeightRows; ++r) {
        float& total = Shape::kQuantized ? codes[row * kWeightRows + r] : sum[row * kWeightRows + r];
        total = fmaf(weight[r].w, x.w, fmaf(weight[r].z, x.z, fmaf(weight[r].y, x.y, fmaf(weight[r].x, x.x, total))));
      }
    }
  }
  if constexpr (Shape::kQuantized) {
#pragma unroll
    for (int r = 0; r < kWeightRows; ++r) {
      const float2 pair = scale_and_offset(stream.args.scale_format, stream.scales[place][r]);
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        const float inputs = room.sums[(row * room.tile_chunks + chunk) * kWarp + stream.lane];
        float& total = sum[row * kWeightRows + r];
        total = fmaf(pair.x, codes[row * kWeightRows + r], fmaf(pair.y, inputs, total));
      }
    }
  }
}

// --- what becomes of it

/// What the product of a row is to be multiplied with: 1 / rms, or 1.
template <WeightFormat kFormat, int kRows>
__device__ __forceinline__ float row_factor(const FusedLinear& args, const FusedRoom<kFormat, kRows>& room, int row) {
  if (args.norm.gain == nullptr || args.norm.kind != NormKind::kRms) return 1;
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kFusedWarps; ++warp) sum += room.squares[row * kFusedWarps + warp];
  return 1.0F / sqrtf(sum / static_cast<float>(args.cols) + args.norm.eps);
}

/// The pair and row of x that this lane finishes of a task; row -1: none.
template <WeightFormat kFormat, int kRows>
__device__ __forceinline__ int own_result(const FusedLinear& args, int task, int split, PairRows* rows) {
  using Shape = FusedShape<kFormat, kRows>;
  constexpr int kLanes = kWarp / Shape::kResults;  // that hold the same result
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int index = lane / kLanes;
  const int row = index / Shape::kWeightRows;
  if (split != 0 || lane % kLanes != 0 || index % 2 != 0 || row >= args.rows) return -1;
  *rows = locate_pair(args, task * Shape::kPairs + index % Shape::kWeightRows / 2);
  return row;
}

template <WeightFormat kFormat, int kRows>
__device__ __forceinline__ float2 load_task_ahead(const FusedLinear& args, int task, int split) {
  PairRows rows;
  const int row = own_result<kFormat, kRows>(args, task, split, &rows);
  return row < 0 ? float2{0, 0} : load_ahead(args, row, rows);
}

template <WeightFormat kFormat, int kRows>
__device__ __forceinline__ void finish_task(const FusedLinear& args, const FusedRoom<kFormat, kRows>& room, int task,
                                            int iteration, int split,
                                            float (&sum)[FusedShape<kFormat, kRows>::kResults], float2 ahead) {
  using Shape = FusedShape<kFormat, kRows>;
  constexpr int kLanes = kWarp / Shape::kResults;  // that hold the same result
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int index = lane / kLanes;
  float total = sum_each(sum, lane);
  if (args.splits > 1) {
    float* partials = room.partials + iteration % 2 * kFusedWarps * Shape::kResults;
    if (lane % kLanes == 0) partials[warp * Shape::kResults + index] = total;
    __syncthreads();
    if (split != 0) return;
    total = 0;
    for (int i = 0; i < args.splits; ++i) total += partials[(warp + i) * Shape::kResults + index];
  }
  total *= row_factor(args, room, index / Shape::kWeightRows);
  const float partner = __shfl_xor_sync(kAllLanes, total, kLanes);
  PairRows rows;
  const int row = own_result<kFormat, kRows>(args, task, split, &rows);
  if (row >= 0 && rows.row[0] >= 0) finish_pair(args, room.places, row, rows, total, partner, ahead);
}

template <WeightFormat kFormat, int kRows>
__global__ void __launch_bounds__(kFusedThreads, (FusedShape<kFormat, kRows>::kBlocks))
    fused_linear(const __grid_constant__ FusedLinear args) {
  using Shape = FusedShape<kFormat, kRows>;
  extern __shared__ __align__(16) std::byte shared[];
  const FusedRoom<kFormat, kRows> room(shared, args);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int split = warp % args.splits;
  const int slots = kFusedWarps / args.splits;
  const int slot = warp / args.splits;
  const auto task_of = [&](int iteration) {
    return (iteration * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x)) * slots + slot;
  };
  WeightStream<kFormat, kRows> stream(args, split);
  stream.turn_to(task_of(0));
#pragma unroll
  for (int place = 0; place < Shape::kDepth; ++place) stream.load(place, place);
  if (args.finish == Finish::kQkv && static_cast<int>(threadIdx.x) < args.rows) {
    room.places[threadIdx.x] = find_cache_place(args.heads, args.first_row + threadIdx.x);
  }
  wait_for_previous();
  let_next_start();
  float2 ahead = load_task_ahead<kFormat, kRows>(args, task_of(0), split);
  if (args.norm.gain != nullptr && args.norm.kind == NormKind::kLayer) find_moments(args, room);
  float square[kRows] = {};
  const bool tiled = args.tile_steps < args.padded_steps;
  if (!tiled) stage_input(args, room, 0, square, true);
  for (int iteration = 0; iteration < args.iterations; ++iteration) {
    const float2 now = ahead;
    if (iteration + 1 < args.iterations) {
      ahead = load_task_ahead<kFormat, kRows>(args, task_of(iteration + 1), split);
    }
    float sum[Shape::kResults] = {};
    int tile_step = 0;
    for (int step = 0; step < args.padded_steps; step += Shape::kDepth) {
      if (tiled && step % args.tile_steps == 0) {
        tile_step = step;
        stage_input(args, room, step * args.splits, square,
                    iteration == 0 && step + args.tile_steps >= args.padded_steps);
      }
      const bool last = step + Shape::kDepth >= args.padded_steps;
      if (last) stream.turn_to(iteration + 1 < args.iterations ? task_of(iteration + 1) : args.pairs);
      const int next = last ? 0 : step + Shape::kDepth;
#pragma unroll
      for (int place = 0; place < Shape::kDepth; ++place) {
        if (step + place < args.steps) {
          consume(stream, place, room, (step + place - tile_step) * args.splits + split, sum);
        }
        stream.load(place, next + place);
      }
    }
    finish_task(args, room, task_of(iteration), iteration, split, sum, now);
  }
}

// --- the launch

/// How many warps share a row of `chunks` steps. It costs a barrier a task, and pays where there are few tasks for many
/// warps: all of a warp's loads are then in flight at once. By the shape of the weights alone: see the top.
inline std::int32_t splits_of(WeightFormat format, std::int32_t chunks, std::int32_t pairs) {
  constexpr std::int32_t kWarps = 2048;  // about as many as large devices run at once
  if (format == WeightFormat::kInt4 || chunks < 8) return 1;
  const std::int32_t most = chunks < 32 || format == WeightFormat::kInt8 ? 2 : 4;
  std::int32_t splits = 1;
  while (splits < most && 2 * splits * pairs <= kWarps) splits *= 2;
  return splits;
}

template <WeightFormat kFormat, int kRows>
cudaError_t run_fused_rows(const KernelContext& context, FusedLinear args) {
  using Shape = FusedShape<kFormat, kRows>;
  args.row_vectors = static_cast<std::int32_t>(ceil_div(args.cols, Shape::kElements));
  const auto chunks = static_cast<std::int32_t>(ceil_div(args.row_vectors, kWarp));
  args.splits = splits_of(kFormat, chunks, args.pairs);
  args.steps = static_cast<std::int32_t>(ceil_div(chunks, args.splits));
  args.padded_steps = static_cast<std::int32_t>(round_up(args.steps, Shape::kDepth));
  if (Shape::kQuantized) {
    args.group_vectors = args.group / Shape::kElements;
    args.group_shift = -1;
    for (int shift = 0; shift < 20; ++shift) {
      if (args.group_vectors == 1 << shift) args.group_shift = shift;
    }
  }
  // A tile is whole rounds of the stream and, so that threads square the same columns however x is cut, whole rounds of
  // the block's threads over x.
  std::int64_t unit = Shape::kDepth;
  while (unit * args.splits * Shape::kChunkColumns % (4LL * kFusedThreads) != 0) unit += Shape::kDepth;
  const std::int64_t budget = (context.shared_bytes - 1024 * Shape::kBlocks) / Shape::kBlocks;
  std::int64_t tile_steps = args.padded_steps;
  if (FusedRoom<kFormat, kRows>::bytes(tile_steps * args.splits) > budget) {
    tile_steps = unit;
    while (FusedRoom<kFormat, kRows>::bytes((tile_steps + unit) * args.splits) <= budget) tile_steps += unit;
  }
  args.tile_steps = static_cast<std::int32_t>(tile_steps);
  const std::int64_t tasks = ceil_div(args.pairs, Shape::kPairs);
  const std::int64_t slots = kFusedWarps / args.splits;
  args.iterations = static_cast<std::int32_t>(ceil_div(tasks, slots * context.multiprocessors * Shape::kBlocks));
  const std::int64_t grid = ceil_div(tasks, slots * args.iterations);
  const std::int64_t bytes = FusedRoom<kFormat, kRows>::bytes(tile_steps * args.splits);
  return launch(context, fused_linear<kFormat, kRows>, dim3(static_cast<unsigned>(grid)), kFusedThreads,
                static_cast<std::size_t>(bytes), args);
}

template <WeightFormat kFormat>
cudaError_t run_fused(const KernelContext& context, const FusedLinear& args) {
  if (args.rows <= 1) return run_fused_rows<kFormat, 1>(context, args);
  if (args.rows <= 2) return run_fused_rows<kFormat, 2>(context, args);
  if (args.rows <= 4) return run_fused_rows<kFormat, 4>(context, args);
  return run_fused_rows<kFormat, 8>(context, args);
}

template <WeightFormat kFormat>
cudaError_t prepare_fused(int shared_bytes) {
  constexpr cudaFuncAttribute kAttribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  LANNER_RETURN_IF_CUDA_ERROR(cudaFuncSetAttribute(fused_linear<kFormat, 1>, kAttribute, shared_bytes));
  LANNER_RETURN_IF_CUDA_ERROR(cudaFuncSetAttribute(fused_linear<kFormat, 2>, kAttribute, shared_bytes));
  LANNER_RETURN_IF_CUDA_ERROR(cudaFuncSetAttribute(fused_linear<kFormat, 4>, kAttribute, shared_bytes));
  return cudaFuncSetAttribute(fused_linear<kFormat, 8>, kAttribute, shared_bytes);
}

}  // namespace lanner::ops::cuda
