#pragma once
// y = W · norm(x) and what follows, for 1 to 8 rows of x and int4 weights in panels, by the tensor cores: decode of few
// sequences.
//
// Bound: the bytes of W, read once, and behind them instructions: a mask makes fp16 numbers of two codes, of the
// smallest that there are, and the tensor core takes them as they are (a code times 2^-24, or 2^-20 for every other
// pair of columns), so that scale and zero are done to sums of 32 or 128 columns. That is so for any number of rows,
// since eight rows are what mma.m16n8k16 takes on its right side in any case. A step of a small model is many such
// kernels, each as long as the way to memory and back a few times: what counts besides is that a kernel has few
// instructions, since most run once, and that its weights are on their way before the previous kernel has ended. Loops
// are therefore not unrolled beyond two tiles, and nothing is divided.
//
// Weights are the left side. A panel is 16 of their rows; a lane's 16 bytes of a tile (128 columns) are eight columns
// of each 32 of one row, four of each of eight products: which columns meet in a product does not matter as long as
// both sides agree, so that nothing has to be moved between lanes. x lies in shared memory in fp16, normed, beside the
// sums of its columns, by which a weight's zero is taken off (panel_input.cuh):
//     sum of scale * (code - zero) * x = scale * (sum of code * x - zero * sum of x).
//
// A block is sixteen warps, one block for each multiprocessor and room for one of the next kernel's beside it. A *task*
// is one panel, or two whose rows belong together: partners of the rotation, gate and up. The warps form one, two or
// four *teams*, each with a task of its own at a time; warps of a team share the task's columns, every so many-th tile
// each, and their sums meet in shared memory, in fixed order. Each warp copies what it will read into a ring of slots
// of its own (cp.async), so that no warp waits for another one's weights.
//
// Order of summation of one output: that of the tensor core within 16 columns, the products of a group's 32 or 128
// columns ascending in two sums, the groups of a warp, then the warps of a team. It follows from the shape of the
// weights, the number of multiprocessors, and whether x has more than two rows. An infinity in x gives NaN: it is less
// itself, by the sum of x.

#include <algorithm>
#include <bit>

#include "ops/cuda/panel_input.cuh"
#include "ops/cuda/panel_linear.h"
#include "ops/cuda/warpgroup.cuh"

namespace lanner::ops::cuda {

/// Adds what 32 or 128 columns gave to the results. first, second: sums of code * x * 2^-24 and of code * x * 2^-20, of
/// different columns; they are scaled, and lose the zero times the sum of x. pairs, sums: the group's.
template <bool kZeros, int kRows>
__device__ __forceinline__ void add_group(const float (&first)[4], const float (&second)[4], const std::uint32_t* pairs,
                                          const float* sums, float (&result)[4]) {
  constexpr float kOne = 16777216.0F;  // 2^24
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
  float2 of_x = {0, 0};
  if constexpr (kRows == 1) {
    of_x.x = sums[0];
  } else if (column < kRows) {
    of_x = *reinterpret_cast<const float2*>(sums + column);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float2 pair = widen_word<__half>(pairs[half * 8]);
#pragma unroll
    for (int c = 0; c < (kRows == 1 ? 1 : 2); ++c) {
      const int i = half * 2 + c;
      const float codes = fmaf(first[i], kOne, second[i] * (kOne / 16));
      const float x = c == 0 ? of_x.x : of_x.y;
      result[i] =
          kZeros ? fmaf(pair.x, fmaf(-pair.y, x, codes), result[i]) : fmaf(pair.x, codes, fmaf(pair.y, x, result[i]));
    }
  }
}

/// A tile's products. slot: the tile and its pairs; input, sums: x's; kWhole: the tile lies in one group.
template <bool kZeros, bool kWhole, int kRows>
__device__ __forceinline__ void multiply_tile(const PanelWork& work, const std::byte* slot, const uint4* input,
                                              const float* sums, float (&result)[4]) {
  constexpr std::uint32_t kFirst = 0x000F000FU;  // columns 0 and 1 of four, as int4_nibble() has them
  constexpr std::uint32_t kSecond = 0x00F000F0U;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto* codes = reinterpret_cast<const uint4*>(slot) + lane;
  const auto* pairs = reinterpret_cast<const std::uint32_t*>(slot + kTileBytes) + lane / 4;
  const uint4 v = codes[0];
  const uint4 w = codes[kWarp];
  float first[4] = {};
  float second[4] = {};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    uint4 x = make_uint4(0, 0, 0, 0);
    if (kRows == 8 || lane < kRows * 4) x = input[j * kRows * 4 + lane];
    const std::uint32_t a = j == 0 ? v.x : j == 1 ? v.y : j == 2 ? v.z : v.w;
    const std::uint32_t b = j == 0 ? w.x : j == 1 ? w.y : j == 2 ? w.z : w.w;
    const std::uint32_t c = a >> 8;
    const std::uint32_t d = b >> 8;
    const std::uint32_t low[4] = {a & kFirst, b & kFirst, c & kFirst, d & kFirst};
    multiply_add<__half>(first, low, x.x, x.z);
    const std::uint32_t high[4] = {a & kSecond, b & kSecond, c & kSecond, d & kSecond};
    multiply_add<__half>(second, high, x.y, x.w);
    if constexpr (!kWhole) {
      const int group = j >> work.group_shift;  // of the tile's
      add_group<kZeros, kRows>(first, second, pairs + group * static_cast<int>(kPanelHeight), sums + j * kRows, result);
#pragma unroll
      for (int i = 0; i < 4; ++i) first[i] = second[i] = 0;
    }
  }
  if constexpr (kWhole) add_group<kZeros, kRows>(first, second, pairs, sums, result);
}

/// Adds the products of a step's tiles to the results of the task's panels.
template <bool kZeros, bool kWhole, typename Shape>
__device__ __forceinline__ void multiply_step(const PanelWork& work, const TaskCursor& cursor, const std::byte* slot,
                                              int tile_bytes, const PanelRoom<Shape>& room,
                                              float (&result)[Shape::kPanels][4]) {
  const auto multiply = [&](int i, float(&into)[4]) {
    const int tile = cursor.tile_of_step<Shape>(work, i);
    multiply_tile<kZeros, kWhole, Shape::kRows>(work, slot + i * tile_bytes,
                                                room.input + tile * kTileVectors * Shape::kRows,
                                                room.sums + tile * (kWhole ? 1 : 4) * Shape::kRows, into);
  };
  if constexpr (!Shape::kIsAlone) {
    multiply(0, result[0]);
    multiply(1, result[1]);
  } else if (Shape::kStepTiles == 1 || cursor.tile_of_step<Shape>(work, 1) >= work.tiles) {
    multiply(0, result[0]);
  } else {
    float other[4] = {};
    multiply(0, result[0]);
    multiply(1, other);
#pragma unroll
    for (int i = 0; i < 4; ++i) result[0][i] += other[i];
  }
}

// --- what becomes of it

/// The pair of a task and the row of x that a thread of a team finishes.
template <typename Shape>
struct PairPlace {
  int pair;
  int row;
  __device__ __forceinline__ explicit PairPlace(int team_thread)
      : pair(team_thread % Shape::kPairs), row(team_thread / Shape::kPairs) {}

  __device__ __forceinline__ PairRows rows(const TaskPlace<Shape>& place) const {
    constexpr int kHeight = static_cast<int>(kPanelHeight);
    if constexpr (Shape::kIsAlone) {
      const int first = place.panel[0] * kHeight + 2 * pair;
      return {{place.part[0], place.part[0]}, {first, first + 1}};
    } else {
      return {{place.part[0], place.part[1]}, {place.panel[0] * kHeight + pair, place.panel[1] * kHeight + pair}};
    }
  }
};

/// What will be needed to finish a pair, asked for while it is computed.
template <typename Shape>
__device__ __forceinline__ float2 load_ahead_of(const PanelWork& work, int task, const PairPlace<Shape>& own) {
  const FusedLinear& args = work.linear;
  if (own.row >= args.rows || Shape::kKind == PanelKind::kGated || TaskCursor::is_shadow(work)) return {0, 0};
  const TaskPlace<Shape> place(work, task);
  if constexpr (Shape::kKind == PanelKind::kTurned) {
    return load_turn(args.heads, args.first_row + own.row, args.parts[place.part[0]].index, place.element + own.pair);
  }
  return load_ahead(args, own.row, own.rows(place));
}

/// One row's products of a pair. What the next product reads in fp16 is handed over so.
template <typename Shape>
__device__ __forceinline__ void finish_panel_pair(const PanelWork& work, int task, const CachePlace* places,
                                                  const PairPlace<Shape>& own, float a, float b, float2 ahead) {
  const FusedLinear& args = work.linear;
  const TaskPlace<Shape> place(work, task);
  const PairRows rows = own.rows(place);
  const FusedPart& first = args.parts[rows.part[0]];
  const FusedPart& second = args.parts[rows.part[1]];
  if (Shape::kIsAlone && args.out_format == WeightFormat::kF32) {
    return finish_pair(args, places, own.row, rows, a, b, ahead);
  }
  if (first.bias != nullptr) a += __ldg(first.bias + rows.row[0]);
  if (second.bias != nullptr) b += __ldg(second.bias + rows.row[1]);
  if constexpr (Shape::kKind == PanelKind::kTurned) {
    const int element = place.element + own.pair;
    write_head_pair(args.heads, places[own.row], args.first_row + own.row, first.index, place.head, element,
                    element + args.heads.head_dim / 2, a, b, ahead);
  } else {
    const std::int64_t at = own.row * args.out_stride + first.first_output + rows.row[0];
    if constexpr (Shape::kKind == PanelKind::kGated) {
      store_operand(args.out_format, args.out, at, gated(args.gate, a) * b);
    } else {  // kGateAlone: of one panel no other finish writes 16 bits
      store_operand_pair(args.out_format, args.out, at, gated(args.gate, a), gated(args.gate, b));
    }
  }
}

/// Leaves a warp's results of a task for its team.
template <typename Shape>
__device__ __forceinline__ void leave_partials(const float (&sum)[Shape::kPanels][4], float* partials) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int column = lane % 4 * 2;
#pragma unroll
  for (int p = 0; p < Shape::kPanels; ++p) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int height = p * static_cast<int>(kPanelHeight) + i / 2 * 8 + lane / 4;
      if (column + i % 2 < Shape::kRows) partials[height * Shape::kRows + column + i % 2] = sum[p][i];
    }
  }
}

/// The products of a pair, of what the warps of the team left from `of_team` on.
template <typename Shape>
__device__ __forceinline__ float2 sum_of_team(const PanelWork& work, const PairPlace<Shape>& own,
                                              const float* of_team) {
  const int above = Shape::kIsAlone ? 2 * own.pair : own.pair;
  const int below = Shape::kIsAlone ? 2 * own.pair + 1 : own.pair + static_cast<int>(kPanelHeight);
  of_team += own.row;
  float2 sum = {0, 0};
#pragma unroll 4
  for (int warp = 0; warp < 1 << work.team_shift; ++warp, of_team += Shape::kSums) {
    sum.x += of_team[above * Shape::kRows];
    sum.y += of_team[below * Shape::kRows];
  }
  return sum;
}

template <bool kZeros, bool kWhole, typename Shape>
__global__ void __launch_bounds__(kPanelThreads, 2) panel_linear(const __grid_constant__ PanelWork work) {
  extern __shared__ __align__(128) std::byte shared[];
  const FusedLinear& args = work.linear;
  const PanelRoom<Shape> room(shared, work);
  const int thread = static_cast<int>(threadIdx.x);
  PanelStream<Shape> stream(work, room);
#pragma unroll 1
  for (int slot = 0; slot < kSlots; ++slot) stream.ask(slot);
  if (Shape::kKind == PanelKind::kTurned && thread < args.rows) {
    room.places[thread] = find_cache_place(args.heads, args.first_row + thread);
  }
  float4 gain = {0, 0, 0, 0};
  if (work.input == nullptr && 4 * thread < args.cols) {
    gain = __ldg(reinterpret_cast<const float4*>(args.norm.gain) + thread);
  }
  if constexpr (Shape::kLetsInEarly) let_next_start();  // which waits all the same
  wait_for_previous();
  if constexpr (!Shape::kLetsInEarly) let_next_start();
  if (work.input != nullptr) {
    take_input<kWhole>(work, room);
  } else {
    norm_input<kWhole>(work, room, gain);
  }
  __syncthreads();
  const int team_threads = kWarp << work.team_shift;
  const int team_thread = thread & (team_threads - 1);
  const PairPlace<Shape> own(team_thread);
  int slot = 0;
  int turn = 0;
#pragma unroll 1
  for (TaskCursor cursor(work); cursor.task < work.tasks; cursor.next_task(work), turn ^= 1) {
    const float2 ahead = load_ahead_of(work, cursor.task, own);
    float sum[Shape::kPanels][4] = {};
#pragma unroll 1
    for (; cursor.tile < work.tiles; cursor.next_step<Shape>(work)) {
      wait_for_copies<kSlots - 1>();
      __syncwarp();  // a tile's pairs are copied by some lanes for all
      multiply_step<kZeros, kWhole>(work, cursor, stream.slot(slot), stream.tile_bytes, room, sum);
      __syncwarp();
      stream.ask(slot);
      slot = slot + 1 == kSlots ? 0 : slot + 1;
    }
    float* partials = room.partials + (turn * kPanelWarps + TaskCursor::warp()) * Shape::kSums;
    leave_partials<Shape>(sum, partials);
    __syncwarp();  // the barrier is of whole warps
    named_barrier(1 + TaskCursor::team(work), team_threads);
    if (own.row < args.rows && !TaskCursor::is_shadow(work)) {
      const float2 pair = sum_of_team<Shape>(work, own, partials - TaskCursor::team_warp(work) * Shape::kSums);
      finish_panel_pair(work, cursor.task, room.places, own, pair.x, pair.y, ahead);
    }
  }
}

// --- the launch

/// Bytes of a block's PanelRoom.
template <typename Shape>
std::int64_t panel_bytes(std::int64_t cols, std::int64_t slots, std::int64_t pairs_bytes) {
  const std::int64_t input = Shape::kRows * (cols * 2 + cols / kPanelColumns * 16);
  const std::int64_t ring = kPanelWarps * slots * Shape::kStepTiles * (kPanelTileBytes + pairs_bytes);
  const std::int64_t floats = 2 * kPanelWarps * Shape::kSums + Shape::kRows * kPanelWarps;
  return input + ring + floats * 4 + kPanelWarps * Shape::kPanels * static_cast<std::int64_t>(sizeof(PanelSource)) +
         Shape::kRows * static_cast<std::int64_t>(sizeof(CachePlace));
}

/// Bytes of the pairs that belong to a tile of a panel.
inline std::int64_t pairs_bytes_of(std::int64_t group) {
  return kPairsBytes * std::max<std::int64_t>(1, kPanelColumns / group);
}

/// Shared memory that a block may ask for, a margin aside.
inline std::int64_t panel_room(const KernelContext& context) { return context.shared_bytes - 1024; }

/// One block for each multiprocessor where there are nearly as many tasks: where one were left without, the blocks of
/// the next kernel, which come while these are here, would crowd on it and end later than all others.
inline std::int64_t blocks_of(const KernelContext& context, std::int64_t tasks) {
  const std::int64_t all = context.multiprocessors;
  return tasks * 8 >= all * 7 ? all : tasks;
}

/// Cuts the tasks for so many blocks: as many teams as keep them evenly busy, rather more of them than turns. A ring
/// has one slot only where no warp has a second step.
template <typename Shape>
void cut_tasks(std::int64_t blocks, PanelWork* work) {
  std::int64_t least = 0;
  for (std::int64_t teams = 1; teams <= kMostTeams; teams *= 2) {
    const std::int64_t turns = ceil_div(work->tasks, teams * blocks);
    if (teams > 1 && turns * teams > least) continue;
    least = turns * teams;
    work->team_shift = teams == 1 ? 4 : teams == 2 ? 3 : 2;
    const std::int64_t steps = turns * ceil_div(work->tiles, kPanelWarps / teams * Shape::kStepColumns);
    work->slots = static_cast<std::int32_t>(std::min<std::int64_t>(kSlots, steps));
  }
}

/// Shared memory is asked for so that a multiprocessor takes one block of a kernel and one of the next. Of two
/// neighbours in a layer, attention among them, one asks for a little more than half and the other for a little less:
/// two of kAlone never meet, and to two of the others the scheduler prefers one on each multiprocessor.
template <typename Shape>
std::int64_t bytes_asked(const KernelContext& context, std::int64_t needed) {
  if (!context.dependent_launch) return needed;
  constexpr std::int64_t kReserved = 1024;  // by the system, of each block
  constexpr std::int64_t kLittle = 1024;
  const std::int64_t half = (context.shared_bytes + kReserved) / 2 - kReserved;
  return std::max(needed, Shape::kIsAlone ? half + kLittle : half - kLittle);
}

template <bool kZeros, bool kWhole, typename Shape>
cudaError_t launch_panels(const KernelContext& context, PanelWork work) {
  work.tasks = work.linear.pairs / Shape::kPairs;
  const std::int64_t blocks = blocks_of(context, work.tasks);
  cut_tasks<Shape>(blocks, &work);
  const std::int64_t bytes =
      bytes_asked<Shape>(context, panel_bytes<Shape>(work.linear.cols, work.slots, work.pairs_bytes));
  return launch(context, panel_linear<kZeros, kWhole, Shape>, dim3(static_cast<unsigned>(blocks)), kPanelThreads,
                static_cast<std::size_t>(bytes), work);
}

template <bool kZeros, bool kWhole, PanelKind kKind>
cudaError_t run_panel_rows(const KernelContext& context, const PanelWork& work) {
  if (work.linear.rows <= 1) return launch_panels<kZeros, kWhole, PanelShape<kKind, 1>>(context, work);
  if (work.linear.rows <= 2) return launch_panels<kZeros, kWhole, PanelShape<kKind, 2>>(context, work);
  if (work.linear.rows <= 4) return launch_panels<kZeros, kWhole, PanelShape<kKind, 4>>(context, work);
  return launch_panels<kZeros, kWhole, PanelShape<kKind, 8>>(context, work);
}

/// How many rows have room in shared memory; one always has: see panels_fit().
template <PanelKind kKind>
std::int32_t rows_at_once(const KernelContext& context, const PanelWork& work) {
  const std::int64_t room = panel_room(context);
  const std::int64_t cols = work.linear.cols;
  if (panel_bytes<PanelShape<kKind, 8>>(cols, kSlots, work.pairs_bytes) <= room) return 8;
  if (panel_bytes<PanelShape<kKind, 4>>(cols, kSlots, work.pairs_bytes) <= room) return 4;
  return panel_bytes<PanelShape<kKind, 2>>(cols, kSlots, work.pairs_bytes) <= room ? 2 : 1;
}

/// In as many launches as the input's room in shared memory asks for.
template <bool kZeros, PanelKind kKind>
cudaError_t run_panels_of_kind(const KernelContext& context, PanelWork work) {
  FusedLinear& linear = work.linear;
  const FusedLinear whole = linear;
  const std::uint16_t* input = work.input;
  const std::int32_t most = rows_at_once<kKind>(context, work);
  for (std::int32_t first = 0; first < whole.rows; first += most) {
    linear.rows = std::min(most, whole.rows - first);
    linear.first_row = whole.first_row + first;
    const std::int64_t element = whole.out_format == WeightFormat::kF32 ? 4 : 2;
    linear.out = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(whole.out) + first * whole.out_stride * element);
    if (input != nullptr) {
      work.input = input + first * work.input_stride;
    } else if (whole.row_index != nullptr) {
      linear.row_index = whole.row_index + first;
    } else {
      linear.x = whole.x + static_cast<std::int64_t>(first) * whole.cols;
    }
    LANNER_RETURN_IF_CUDA_ERROR((work.group_shift < 2 ? run_panel_rows<kZeros, false, kKind>(context, work)
                                                      : run_panel_rows<kZeros, true, kKind>(context, work)));
  }
  return cudaSuccess;
}

template <bool kZeros>
cudaError_t run_panels_of(const KernelContext& context, const PanelLinear& args) {
  const FusedLinear& linear = args.linear;
  PanelWork work = {.linear = linear, .input = args.input, .input_stride = args.input_stride};
  work.inverse_cols = 1.0F / static_cast<float>(linear.cols);
  work.tiles = linear.cols / static_cast<std::int32_t>(kPanelColumns);
  work.groups = linear.cols / linear.group;
  work.group_shift = work.groups == 1 ? 31 : std::countr_zero(static_cast<std::uint32_t>(linear.group / 32));
  work.pairs_bytes = static_cast<std::int32_t>(pairs_bytes_of(linear.group));
  if (linear.finish == Finish::kGate) return run_panels_of_kind<kZeros, PanelKind::kGated>(context, work);
  if (linear.finish != Finish::kQkv) return run_panels_of_kind<kZeros, PanelKind::kAlone>(context, work);
  work.head_tasks = linear.heads.head_dim / 2 / static_cast<std::int32_t>(kPanelHeight);
  work.head_inverse = ((1 << kInverseShift) + work.head_tasks - 1) / work.head_tasks;
  return run_panels_of_kind<kZeros, PanelKind::kTurned>(context, work);
}

template <bool kZeros, bool kWhole, PanelKind kKind>
cudaError_t prepare_panel_rows(int shared_bytes) {
  for (auto* kernel :
       {panel_linear<kZeros, kWhole, PanelShape<kKind, 1>>, panel_linear<kZeros, kWhole, PanelShape<kKind, 2>>,
        panel_linear<kZeros, kWhole, PanelShape<kKind, 4>>, panel_linear<kZeros, kWhole, PanelShape<kKind, 8>>}) {
    LANNER_RETURN_IF_CUDA_ERROR(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  }
  return cudaSuccess;
}

template <bool kZeros, PanelKind kKind>
cudaError_t prepare_panels_of_kind(int shared_bytes) {
  LANNER_RETURN_IF_CUDA_ERROR((prepare_panel_rows<kZeros, false, kKind>(shared_bytes)));
  return prepare_panel_rows<kZeros, true, kKind>(shared_bytes);
}

template <bool kZeros>
cudaError_t prepare_panels_of(int shared_bytes) {
  LANNER_RETURN_IF_CUDA_ERROR((prepare_panels_of_kind<kZeros, PanelKind::kAlone>(shared_bytes)));
  LANNER_RETURN_IF_CUDA_ERROR((prepare_panels_of_kind<kZeros, PanelKind::kGated>(shared_bytes)));
  return prepare_panels_of_kind<kZeros, PanelKind::kTurned>(shared_bytes);
}

}  // namespace lanner::ops::cuda
