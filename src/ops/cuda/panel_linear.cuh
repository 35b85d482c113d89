#pragma once
// y = W · norm(x) and what follows, for 1 to 8 rows of x and int4 weights in panels, by the tensor cores: decode of few
// sequences.
//
// Bound: the bytes of W, read once, and behind them the instructions that make fp16 numbers of codes: three for two of
// them (a mask under an exponent, less what that exponent adds, times the scale), for any number of rows, since eight
// rows are what mma.m16n8k16 takes on its right side in any case.
//
// Weights are the left side. A panel is 16 of their rows; a lane's 16 bytes of a tile (128 columns) are 32 columns of
// one row, that is four of each of eight products: which columns meet in a product does not matter as long as both
// sides agree, so that nothing has to be moved between lanes. x lies in shared memory in fp16, normed, in the order in
// which lanes take it: 16 bytes are a lane's part of two products.
//
// A block is eight warps. A *task* is one panel, or two whose rows belong together: partners of the rotation, gate and
// up. Warps share a task's columns, every eighth tile each; their sums meet in shared memory, in fixed order. A warp
// has kDepth tiles in registers on their way, the first of them asked for before the previous kernel has ended.
//
// Order of summation of one output: that of the tensor core within 16 columns, a warp's products ascending in two sums,
// then the warps. It follows from the shape of the weights alone.

#include <algorithm>

#include "ops/cuda/fused_finish.cuh"
#include "ops/cuda/fused_input.cuh"
#include "ops/cuda/panel_linear.h"

namespace lanner::ops::cuda {

inline constexpr int kPanelWarps = 8;
inline constexpr int kPanelThreads = kPanelWarps * kWarp;
inline constexpr int kPanelVectors = static_cast<int>(kPanelTileBytes) / 16;  // of a tile
inline constexpr int kTilePieces = static_cast<int>(kPanelColumns) / 8;       // of x that 16 bytes of fp16 hold

template <int kPanels>
inline constexpr int kPanelDepth = kPanels == 1 ? 8 : 2;
template <int kPanels>
inline constexpr int kPanelPairs = 8 * kPanels;  // of a task

/// What the kernels are told.
struct PanelWork {
  FusedLinear linear;
  const std::uint16_t* input;
  std::int64_t input_stride;
  std::int32_t tiles;  // of a panel
  std::int32_t steps;  // tiles of a panel that a warp takes at most
  std::int32_t tasks;
  std::int32_t group_vectors;  // 16-byte vectors of a group
  std::int32_t group_shift;    // log2 of them, or -1
};

template <int kRows, int kPanels>
struct PanelRoom {
  uint4* input;        // (tiles, 4, kRows, 4): the 8 columns c * 32 + j * 8 of a tile at j, row, c
  float* partials;     // (2, warps, kPanels, 4, 32)
  float* squares;      // (warps)
  CachePlace* places;  // (kRows): for kQkv
  float4* raw;         // (kRows, cols / 4): x before its norm

  __device__ PanelRoom(std::byte* base, int tiles) {
    input = reinterpret_cast<uint4*>(base);
    partials = reinterpret_cast<float*>(input + tiles * kTilePieces * kRows);
    squares = partials + 2 * kPanelWarps * kPanels * 4 * kWarp;
    places = reinterpret_cast<CachePlace*>(squares + kPanelWarps);
    raw = reinterpret_cast<float4*>(places + kRows);
  }
};

/// Bytes of a block's PanelRoom.
constexpr std::int64_t panel_bytes(std::int64_t rows, std::int64_t panels, std::int64_t cols, bool norm) {
  return rows * cols * 2 + 4 * (2 * kPanelWarps * panels * 4 * kWarp + kPanelWarps) +
         rows * static_cast<std::int64_t>(sizeof(CachePlace)) + (norm ? rows * cols * 4 : 0);
}

// --- the input

__device__ __forceinline__ uint4 rounded_piece(float4 a, float4 b) {
  return make_uint4(operand_word<__half>(a.x, a.y), operand_word<__half>(a.z, a.w), operand_word<__half>(b.x, b.y),
                    operand_word<__half>(b.z, b.w));
}

/// Where the i-th piece of a row comes from and goes to: neighbouring pieces lie side by side in shared memory.
struct PiecePlace {
  int column;
  int index;  // of row 0
};
template <int kRows>
__device__ __forceinline__ PiecePlace piece_place(int i) {
  const int c = i % 4;
  const int j = i / 4 % 4;
  const int tile = i / kTilePieces;
  return {tile * static_cast<int>(kPanelColumns) + c * 32 + j * 8, (tile * 4 + j) * kRows * 4 + c};
}

/// Rows are staged side by side, each by a team of so many warps.
template <int kRows>
inline constexpr int kTeamWarps = kPanelWarps / kRows;

template <int kRows>
struct TeamPlace {
  static constexpr int kThreads = kTeamWarps<kRows> * kWarp;
  int row = static_cast<int>(threadIdx.x) / kThreads;
  int first = static_cast<int>(threadIdx.x) % kThreads;
};

/// x as it is, or prepared; a few pieces at once.
template <int kRows, int kPanels>
__device__ __forceinline__ void stage_plain(const PanelWork& work, const PanelRoom<kRows, kPanels>& room) {
  constexpr int kAtOnce = 4;
  constexpr int kThreads = TeamPlace<kRows>::kThreads;
  const TeamPlace<kRows> team;
  const int pieces = work.tiles * kTilePieces;
  const bool exists = team.row < work.linear.rows;
  const float* x = exists && work.input == nullptr ? input_row(work.linear, team.row) : nullptr;
  const std::uint16_t* prepared = exists && work.input != nullptr ? work.input + team.row * work.input_stride : nullptr;
  for (int first = team.first; first < pieces; first += kAtOnce * kThreads) {
    uint4 piece[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = first + k * kThreads;
      piece[k] = make_uint4(0, 0, 0, 0);
      if (i >= pieces) continue;
      const int column = piece_place<kRows>(i).column;
      if (prepared != nullptr) piece[k] = load_fresh(reinterpret_cast<const uint4*>(prepared + column));
      if (x != nullptr) {
        const auto* place = reinterpret_cast<const float4*>(x + column);
        piece[k] = rounded_piece(load_fresh(place), load_fresh(place + 1));
      }
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = first + k * kThreads;
      if (i < pieces) room.input[piece_place<kRows>(i).index + team.row * 4] = piece[k];
    }
  }
}

__device__ __forceinline__ float squares_of(float4 v, float sum) {
  return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
}
__device__ __forceinline__ float4 product_of(float4 a, float4 b) {
  return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}
__device__ __forceinline__ float4 product_of(float4 a, float b) { return product_of(a, make_float4(b, b, b, b)); }

/// x times gain times 1 / rms. Every thread finds again in shared memory what it put there itself.
template <int kRows, int kPanels>
__device__ __forceinline__ void stage_normed(const PanelWork& work, const PanelRoom<kRows, kPanels>& room) {
  constexpr int kAtOnce = 2;
  constexpr int kThreads = TeamPlace<kRows>::kThreads;
  const FusedLinear& args = work.linear;
  const TeamPlace<kRows> team;
  const int pieces = work.tiles * kTilePieces;
  const bool exists = team.row < args.rows;
  float4* raw = room.raw + team.row * 2 * pieces;
  float square = 0;
  if (exists) {
    const float* x = input_row(args, team.row);
    for (int first = team.first; first < pieces; first += kAtOnce * kThreads) {
      float4 value[kAtOnce][2];
      float4 gain[kAtOnce][2];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        const int i = min(first + k * kThreads, pieces - 1);
        const int column = piece_place<kRows>(i).column;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          value[k][half] = load_fresh(reinterpret_cast<const float4*>(x + column) + half);
          gain[k][half] = __ldg(reinterpret_cast<const float4*>(args.norm.gain + column) + half);
        }
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        const int i = first + k * kThreads;
        if (i >= pieces) break;
        square = squares_of(value[k][1], squares_of(value[k][0], square));
        raw[i] = product_of(value[k][0], gain[k][0]);
        raw[pieces + i] = product_of(value[k][1], gain[k][1]);
      }
    }
  }
  square = warp_sum(square);
  if constexpr (kTeamWarps<kRows> > 1) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    if (threadIdx.x % kWarp == 0) room.squares[warp] = square;
    __syncthreads();
    square = 0;
#pragma unroll
    for (int i = 0; i < kTeamWarps<kRows>; ++i) square += room.squares[team.row * kTeamWarps<kRows> + i];
  }
  const float factor = 1.0F / sqrtf(square / static_cast<float>(args.cols) + args.norm.eps);
  for (int i = team.first; i < pieces; i += kThreads) {
    uint4 piece = make_uint4(0, 0, 0, 0);
    if (exists) piece = rounded_piece(product_of(raw[i], factor), product_of(raw[pieces + i], factor));
    room.input[piece_place<kRows>(i).index + team.row * 4] = piece;
  }
}

/// All of x, into shared memory; ends with a barrier.
template <int kRows, int kPanels>
__device__ __forceinline__ void stage_panel_input(const PanelWork& work, const PanelRoom<kRows, kPanels>& room) {
  if (work.input == nullptr && work.linear.norm.gain != nullptr) {
    stage_normed(work, room);
  } else {
    stage_plain(work, room);
  }
  __syncthreads();
}

// --- the stream of weights

/// What one lane has in flight: kDepth tiles of kPanels panels, of each row lane / 4 and the one eight below it.
template <int kPanels>
struct PanelStream {
  static constexpr int kDepth = kPanelDepth<kPanels>;
  const PanelWork& work;
  std::uint64_t policy;
  int lane;
  bool exists;
  const uint4* codes[kPanels];           // the lane's first of the panel
  const std::uint32_t* scales[kPanels];  // of its row
  uint4 vectors[kDepth][kPanels][2];
  std::uint32_t pairs[kDepth][kPanels][2];

  __device__ explicit PanelStream(const PanelWork& launch)
      : work(launch), policy(streaming_policy()), lane(static_cast<int>(threadIdx.x) % kWarp) {}

  /// Loads come from this task from now on.
  __device__ __forceinline__ void turn_to(int task) {
    exists = task < work.tasks;
    if (!exists) return;
    const PairRows rows = locate_pair(work.linear, task * kPanelPairs<kPanels>);
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      const FusedPart& part = work.linear.parts[rows.part[p]];
      const std::int64_t panel = rows.row[p] / kPanelHeight;
      const std::int64_t groups = work.linear.cols / work.linear.group;
      codes[p] = reinterpret_cast<const uint4*>(part.data) + panel * work.tiles * kPanelVectors + lane;
      scales[p] = static_cast<const std::uint32_t*>(part.scales) + panel * groups * kPanelHeight + lane / 4;
    }
  }

  __device__ __forceinline__ void load(int place, int tile) {
    if (!exists || tile >= work.tiles) return;
    const int vector = tile * 4 + lane % 4;
    const int group = work.group_shift >= 0 ? vector >> work.group_shift : vector / work.group_vectors;
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        vectors[place][p][half] = load_streaming(codes[p] + tile * kPanelVectors + half * kWarp, policy);
        pairs[place][p][half] = __ldg(scales[p] + group * static_cast<int>(kPanelHeight) + half * 8);
      }
    }
  }
};

// --- the product

/// A group's pair, as the codes of a lane's row need it.
template <bool kZeros>
struct PanelScale {
  __half2 low;   // what comes off numbers under 1024's exponent
  __half2 high;  // and under 64's
  __half2 scale;
  __half2 offset;

  __device__ explicit PanelScale(std::uint32_t pair) {
    const __half2 both = *reinterpret_cast<const __half2*>(&pair);
    const __half2 second = __high2half2(both);
    scale = __low2half2(both);
    low = __float2half2_rn(1024.0F);
    high = __float2half2_rn(64.0F);
    if constexpr (kZeros) {
      low = __hadd2(low, second);  // exact: zeros are whole
      high = __hadd2(high, second);
    }
    offset = second;
  }
  __device__ __forceinline__ std::uint32_t number(std::uint32_t bits, __half2 less) const {
    const __half2 code = __hsub2(*reinterpret_cast<const __half2*>(&bits), less);
    const __half2 result = kZeros ? __hmul2(code, scale) : __hfma2(code, scale, offset);
    return *reinterpret_cast<const std::uint32_t*>(&result);
  }
  /// Columns 0 and 1 of four codes, as fused_input.cuh's Decoder has them, and columns 2 and 3.
  __device__ __forceinline__ std::uint32_t first(std::uint32_t codes) const {
    return number((codes & 0x000F000FU) | 0x64006400U, low);
  }
  __device__ __forceinline__ std::uint32_t second(std::uint32_t codes) const {
    return number((codes & 0x00F000F0U) | 0x54005400U, high);
  }
};

/// Adds the products of the tile at `place` of the stream; sum: even and odd products of each panel.
template <bool kZeros, int kRows, int kPanels>
__device__ __forceinline__ void multiply_tile(const PanelStream<kPanels>& stream, int place,
                                              const PanelRoom<kRows, kPanels>& room, int tile,
                                              float (&sum)[kPanels][2][4]) {
  const uint4* input = room.input + tile * 4 * kRows * 4 + stream.lane;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    uint4 x = make_uint4(0, 0, 0, 0);
    if (kRows == 8 || stream.lane < kRows * 4) x = input[j * kRows * 4];
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      const PanelScale<kZeros> above(stream.pairs[place][p][0]);
      const PanelScale<kZeros> below(stream.pairs[place][p][1]);
      const uint4 v = stream.vectors[place][p][0];
      const uint4 w = stream.vectors[place][p][1];
      const std::uint32_t a = j == 0 ? v.x : j == 1 ? v.y : j == 2 ? v.z : v.w;
      const std::uint32_t b = j == 0 ? w.x : j == 1 ? w.y : j == 2 ? w.z : w.w;
      const std::uint32_t even[4] = {above.first(a), below.first(b), above.second(a), below.second(b)};
      multiply_add<__half>(sum[p][0], even, x.x, x.y);
      const std::uint32_t odd[4] = {above.first(a >> 8), below.first(b >> 8), above.second(a >> 8),
                                    below.second(b >> 8)};
      multiply_add<__half>(sum[p][1], odd, x.z, x.w);
    }
  }
}

// --- what becomes of it

/// The pair of a task and the row of x that a thread finishes; row -1: none.
template <int kPanels>
struct PanelResult {
  int pair = static_cast<int>(threadIdx.x) % kPanelPairs<kPanels>;
  int row = static_cast<int>(threadIdx.x) / kPanelPairs<kPanels>;
  PairRows rows;
  float2 ahead = {0, 0};

  __device__ __forceinline__ PanelResult(const FusedLinear& args, int task) {
    if (row >= args.rows) row = -1;
    if (row < 0) return;
    rows = locate_pair(args, task * kPanelPairs<kPanels> + pair);
    ahead = load_ahead(args, row, rows);
  }
};

/// A result of the panel's row `height` and row `row` of x, added up over the warps.
template <int kPanels>
__device__ __forceinline__ float panel_result(const float* partials, int panel, int height, int row) {
  const int element = height / 8 * 2 + row % 2;
  const int lane = height % 8 * 4 + row / 2;
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kPanelWarps; ++warp) {
    sum += partials[((warp * kPanels + panel) * 4 + element) * kWarp + lane];
  }
  return sum;
}

/// One row's products of a pair. What the next product reads in fp16 is handed over so.
__device__ __forceinline__ void finish_panel_pair(const FusedLinear& args, const CachePlace* places, int row,
                                                  const PairRows& rows, float a, float b, float2 ahead) {
  if (args.out_format == WeightFormat::kF32) return finish_pair(args, places, row, rows, a, b, ahead);
  const FusedPart& first = args.parts[rows.part[0]];
  const FusedPart& second = args.parts[rows.part[1]];
  if (first.bias != nullptr) a += __ldg(first.bias + rows.row[0]);
  if (second.bias != nullptr) b += __ldg(second.bias + rows.row[1]);
  auto* out = reinterpret_cast<__half*>(args.out) + row * args.out_stride + first.first_output + rows.row[0];
  if (args.finish == Finish::kGate) {
    out[0] = narrow_operand<__half>(gated(args.gate, a) * b);
  } else {  // kGateAlone
    out[0] = narrow_operand<__half>(gated(args.gate, a));
    out[1] = narrow_operand<__half>(gated(args.gate, b));
  }
}

template <bool kZeros, int kRows, int kPanels>
__global__ void __launch_bounds__(kPanelThreads, 2) panel_linear(const __grid_constant__ PanelWork work) {
  constexpr int kDepth = kPanelDepth<kPanels>;
  extern __shared__ __align__(128) std::byte shared[];
  const FusedLinear& args = work.linear;
  const PanelRoom<kRows, kPanels> room(shared, work.tiles);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarp;
  const int warp = thread / kWarp;
  int task = static_cast<int>(blockIdx.x);
  PanelStream<kPanels> stream(work);
  stream.turn_to(task);
#pragma unroll
  for (int place = 0; place < kDepth; ++place) stream.load(place, warp + place * kPanelWarps);
  if (args.finish == Finish::kQkv && thread < args.rows) {
    room.places[thread] = find_cache_place(args.heads, args.first_row + thread);
  }
  if (work.input == nullptr && args.norm.gain != nullptr) {
    for (int i = thread * kWarp; i < args.cols; i += kPanelThreads * kWarp) prefetch(args.norm.gain + i);
  }
  wait_for_previous();
  let_next_start();
  stage_panel_input(work, room);
  for (int turn = 0; task < work.tasks; ++turn) {
    const PanelResult<kPanels> result(args, task);
    float sum[kPanels][2][4] = {};
    const int next = task + static_cast<int>(gridDim.x);
    for (int step = 0; step < work.steps; step += kDepth) {
      const bool last = step + kDepth >= work.steps;
      if (last) stream.turn_to(next);
#pragma unroll
      for (int place = 0; place < kDepth; ++place) {
        const int tile = warp + (step + place) * kPanelWarps;
        if (tile < work.tiles) multiply_tile<kZeros>(stream, place, room, tile, sum);
        stream.load(place, last ? warp + place * kPanelWarps : tile + kDepth * kPanelWarps);
      }
    }
    float* partials = room.partials + turn % 2 * (kPanelWarps * kPanels * 4 * kWarp);
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        partials[((warp * kPanels + p) * 4 + i) * kWarp + lane] = sum[p][0][i] + sum[p][1][i];
      }
    }
    __syncthreads();
    if (result.row >= 0) {
      const float a = panel_result<kPanels>(partials, 0, kPanels == 2 ? result.pair : 2 * result.pair, result.row);
      const float b =
          panel_result<kPanels>(partials, kPanels - 1, kPanels == 2 ? result.pair : 2 * result.pair + 1, result.row);
      finish_panel_pair(args, room.places, result.row, result.rows, a, b, result.ahead);
    }
    task = next;
  }
}

// --- the launch

template <bool kZeros, int kRows, int kPanels>
cudaError_t launch_panels(const KernelContext& context, PanelWork work) {
  work.tasks = work.linear.pairs / kPanelPairs<kPanels>;
  const std::int64_t iterations = ceil_div(work.tasks, 2LL * context.multiprocessors);
  const std::int64_t blocks = ceil_div(work.tasks, iterations);
  const bool norm = work.input == nullptr && work.linear.norm.gain != nullptr;
  const std::int64_t bytes = panel_bytes(kRows, kPanels, work.linear.cols, norm);
  return launch(context, panel_linear<kZeros, kRows, kPanels>, dim3(static_cast<unsigned>(blocks)), kPanelThreads,
                static_cast<std::size_t>(bytes), work);
}

template <bool kZeros, int kPanels>
cudaError_t run_panel_rows(const KernelContext& context, const PanelWork& work) {
  if (work.linear.rows <= 1) return launch_panels<kZeros, 1, kPanels>(context, work);
  if (work.linear.rows <= 2) return launch_panels<kZeros, 2, kPanels>(context, work);
  if (work.linear.rows <= 4) return launch_panels<kZeros, 4, kPanels>(context, work);
  return launch_panels<kZeros, 8, kPanels>(context, work);
}

/// In as many launches as the input's room in shared memory asks for.
template <bool kZeros>
cudaError_t run_panels_of(const KernelContext& context, const PanelLinear& args) {
  PanelWork work = {.linear = args.linear, .input = args.input, .input_stride = args.input_stride};
  FusedLinear& linear = work.linear;
  work.tiles = linear.cols / static_cast<std::int32_t>(kPanelColumns);
  work.steps = static_cast<std::int32_t>(ceil_div(work.tiles, kPanelWarps));
  work.group_vectors = linear.group / 32;
  work.group_shift = -1;
  for (int shift = 0; shift < 20; ++shift) {
    if (work.group_vectors == 1 << shift) work.group_shift = shift;
  }
  const bool two = linear.finish == Finish::kQkv || linear.finish == Finish::kGate;
  const bool norm = args.input == nullptr && linear.norm.gain != nullptr;
  const std::int32_t all = linear.rows;
  std::int32_t most = static_cast<std::int32_t>(kFusedRows);
  while (most > 1 && panel_bytes(most, two ? 2 : 1, linear.cols, norm) > context.shared_bytes - 1024) most /= 2;
  for (std::int32_t first = 0; first < all; first += most) {
    linear.rows = std::min(most, all - first);
    linear.first_row = args.linear.first_row + first;
    const std::int64_t element = linear.out_format == WeightFormat::kF32 ? 4 : 2;
    linear.out =
        reinterpret_cast<float*>(reinterpret_cast<std::byte*>(args.linear.out) + first * linear.out_stride * element);
    if (args.input != nullptr) work.input = args.input + first * args.input_stride;
    if (args.linear.row_index != nullptr) {
      linear.row_index = args.linear.row_index + first;
    } else {
      linear.x = args.linear.x + static_cast<std::int64_t>(first) * linear.cols;
    }
    LANNER_RETURN_IF_CUDA_ERROR(
        (two ? run_panel_rows<kZeros, 2>(context, work) : run_panel_rows<kZeros, 1>(context, work)));
  }
  return cudaSuccess;
}

template <bool kZeros, int kPanels>
cudaError_t prepare_panel_rows(int shared_bytes) {
  constexpr cudaFuncAttribute kAttribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  LANNER_RETURN_IF_CUDA_ERROR((cudaFuncSetAttribute(panel_linear<kZeros, 1, kPanels>, kAttribute, shared_bytes)));
  LANNER_RETURN_IF_CUDA_ERROR((cudaFuncSetAttribute(panel_linear<kZeros, 2, kPanels>, kAttribute, shared_bytes)));
  LANNER_RETURN_IF_CUDA_ERROR((cudaFuncSetAttribute(panel_linear<kZeros, 4, kPanels>, kAttribute, shared_bytes)));
  return cudaFuncSetAttribute(panel_linear<kZeros, 8, kPanels>, kAttribute, shared_bytes);
}

template <bool kZeros>
cudaError_t prepare_panels_of(int shared_bytes) {
  LANNER_RETURN_IF_CUDA_ERROR((prepare_panel_rows<kZeros, 1>(shared_bytes)));
  return prepare_panel_rows<kZeros, 2>(shared_bytes);
}

}  // namespace lanner::ops::cuda
