#pragma once
// y = W · norm(x) and what follows, for one or two rows of x and 16-bit weights, on Hopper: decode of few sequences.
//
// Bound: the bytes of W, read once. A step is a chain of such kernels of a few microseconds each, and what costs is the
// memory's rest at their borders: the last block's end, the next one's input, its first products. So a kernel asks for
// its first weights before it waits for the previous one, and, where its blocks fill the device, lets the next one
// start at its very top, into the room of every block that ends.
//
// Every warp has a ring of stages of its own in shared memory, which one of its lanes fills by bulk copies and all of
// them empty: no barrier of the block is in the weights' way. A *piece* is kRingSpan 16-byte vectors of a row; a stage
// holds a piece of both rows of a pair (see PairRows). The `splits` warps of a *group* share its pairs: each takes
// every splits-th piece of their rows, and the sums meet in shared memory. Groups take pairs in turn, neighbours on
// different multiprocessors, so that all of them have equally many as far as that goes.
//
// The input, in fp32 and times the norm's gain, lies in shared memory as in fused_linear.cuh; the root mean square is a
// factor of the product.
//
// Order of summation of one output: a vector's columns in two halves, a lane's vectors ascending, then a tree over
// lanes, then over the warps of a group. It follows from the shape of the weights and the number of multiprocessors.

#include "ops/cuda/fused_finish.cuh"
#include "ops/cuda/fused_input.cuh"
#include "ops/cuda/ring_room.cuh"
#include "ops/cuda/warpgroup.cuh"

namespace lanner::ops::cuda {

// --- the stream of weights

/// What one warp asks for, in the hands of one of its lanes.
struct RingSource {
  const RingWork& work;
  std::byte* ring;
  std::uint64_t* full;
  std::uint64_t policy;
  int split;
  int stride;                  // from pair to pair
  int pair;                    // of the next stage
  int vector;                  // its first
  const std::uint8_t* row[2];  // null: none

  __device__ RingSource(const RingWork& launch, std::byte* stages, std::uint64_t* barriers, int split_index, int first,
                        int pair_stride)
      : work(launch),
        ring(stages),
        full(barriers),
        policy(streaming_policy()),
        split(split_index),
        stride(pair_stride) {
    turn_to(first);
  }

  /// Stages are of this pair from now on.
  __device__ void turn_to(int next) {
    pair = next;
    vector = split * kRingSpan;
    const PairRows rows = locate_pair(work.linear, pair);
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const FusedPart& part = work.linear.parts[rows.part[side]];
      row[side] = rows.row[side] >= 0 ? part.data + rows.row[side] * part.stride : nullptr;
    }
  }

  /// Asks for the next stage, if there is one.
  __device__ void ask(int place) {
    if (pair >= work.linear.pairs) return;
    const int bytes = min(kRingSpan, work.linear.row_vectors - vector) * 16;
    std::byte* to = ring + place * kRingStageBytes;
    barrier_expect(full + place, row[1] != nullptr ? 2 * bytes : bytes);
    copy_streaming(to, row[0] + vector * 16LL, bytes, full + place, policy);
    if (row[1] != nullptr) copy_streaming(to + kRingSpanBytes, row[1] + vector * 16LL, bytes, full + place, policy);
    vector += work.linear.splits * kRingSpan;
    if (vector >= work.linear.row_vectors) turn_to(pair + stride);
  }
};

// --- the input

/// All of x, each thread several vectors at once, and each warp's sum of squares. Ends with a barrier.
template <int kRows, int kWarps>
__device__ __forceinline__ void stage_ring_input(const FusedLinear& args, const RingRoom<kRows, kWarps>& room) {
  constexpr int kAtOnce = 4;
  constexpr int kThreads = kWarps * kWarp;
  const int thread = static_cast<int>(threadIdx.x);
  const int vectors = args.row_vectors * 2;
  const auto* gain = reinterpret_cast<const float4*>(args.norm.gain);
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    float square = 0;
    if (row < args.rows) {
      const auto* x = reinterpret_cast<const float4*>(input_row(args, row));
      for (int first = thread; first < vectors; first += kAtOnce * kThreads) {
        float4 loaded[kAtOnce];
        float4 gains[kAtOnce];
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
          const int i = first + k * kThreads;
          loaded[k] = i < vectors ? load_fresh(x + i) : float4{0, 0, 0, 0};
          gains[k] = i < vectors && gain != nullptr ? __ldg(gain + i) : float4{1, 1, 1, 1};
        }
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
          const int i = first + k * kThreads;
          if (i >= vectors) break;
          const float4 v = loaded[k];
          const float4 g = gains[k];
          square = fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, square))));
          const int lane = i % 64 / 2;
          const int j = i % 2;
          room.input[row * room.input_vectors + i / 64 * 64 + j * kWarp + (lane ^ (j * 4))] =
              make_float4(v.x * g.x, v.y * g.y, v.z * g.z, v.w * g.w);
        }
      }
    }
    if (gain != nullptr) {
      square = warp_sum(square);
      if (thread % kWarp == 0) room.squares[row * kWarps + thread / kWarp] = square;
    }
  }
  __syncthreads();
}

/// 1 / rms of a row, or 1.
template <int kRows, int kWarps>
__device__ __forceinline__ float ring_factor(const FusedLinear& args, const RingRoom<kRows, kWarps>& room, int lane,
                                             int row) {
  float factor = 1;
  if (args.norm.gain == nullptr) return factor;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float all = warp_sum(lane < kWarps ? room.squares[r * kWarps + lane] : 0.0F);
    if (r == row) factor = 1.0F / sqrtf(all / static_cast<float>(args.cols) + args.norm.eps);
  }
  return factor;
}

// --- the product

/// Adds the products of a vector of both rows of a pair with the input's rows; sum (kRows, 2).
template <typename T, int kRows>
__device__ __forceinline__ void multiply_vectors(const uint4 (&weight)[2], const float4* input, int input_vectors,
                                                 int lane, float (&sum)[2 * kRows]) {
  float4 w[2][2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float2 a = widen_word<T>(weight[r].x);
    const float2 b = widen_word<T>(weight[r].y);
    const float2 c = widen_word<T>(weight[r].z);
    const float2 d = widen_word<T>(weight[r].w);
    w[r][0] = {a.x, a.y, b.x, b.y};
    w[r][1] = {c.x, c.y, d.x, d.y};
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const float4 x0 = input[row * input_vectors + lane];
    const float4 x1 = input[row * input_vectors + kWarp + (lane ^ 4)];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float low = fmaf(w[r][0].w, x0.w, fmaf(w[r][0].z, x0.z, fmaf(w[r][0].y, x0.y, w[r][0].x * x0.x)));
      const float high = fmaf(w[r][1].w, x1.w, fmaf(w[r][1].z, x1.z, fmaf(w[r][1].y, x1.y, w[r][1].x * x1.x)));
      sum[row * 2 + r] += low + high;
    }
  }
}

/// A stage of which `vectors` are there, or all; what lies behind them may be anything.
template <typename T, int kRows>
__device__ __forceinline__ void multiply_stage(const std::byte* stage, const float4* input, int input_vectors,
                                               int vectors, int lane, float (&sum)[2 * kRows]) {
  const auto* first = reinterpret_cast<const uint4*>(stage) + lane;
  if (vectors >= kRingSpan) {
#pragma unroll
    for (int v = 0; v < kRingVectors; ++v) {
      const uint4 weight[2] = {first[v * kWarp], first[kRingSpan + v * kWarp]};
      multiply_vectors<T, kRows>(weight, input + v * 64, input_vectors, lane, sum);
    }
    return;
  }
  for (int v = 0; v * kWarp + lane < vectors; ++v) {
    const uint4 weight[2] = {first[v * kWarp], first[kRingSpan + v * kWarp]};
    multiply_vectors<T, kRows>(weight, input + v * 64, input_vectors, lane, sum);
  }
}

/// The pair's rows and the row of x that this lane finishes; -1: none.
template <int kRows>
__device__ __forceinline__ int own_ring_result(const FusedLinear& args, int pair, int split, PairRows* rows) {
  constexpr int kLanes = kWarp / (2 * kRows);  // that hold the same result
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int index = lane / kLanes;
  if (split != 0 || lane % kLanes != 0 || index % 2 != 0 || index / 2 >= args.rows) return -1;
  *rows = locate_pair(args, pair);
  return index / 2;
}

template <int kRows>
__device__ __forceinline__ float2 load_ring_ahead(const FusedLinear& args, int pair, int split) {
  PairRows rows;
  const int row = own_ring_result<kRows>(args, pair, split, &rows);
  return row < 0 ? float2{0, 0} : load_ahead(args, row, rows);
}

/// Adds up over lanes and the group's warps, and finishes. `turn`: how many pairs the group had before.
template <int kRows, int kWarps>
__device__ __forceinline__ void finish_ring_pair(const FusedLinear& args, const RingRoom<kRows, kWarps>& room, int pair,
                                                 int turn, int slot, int split, float (&sum)[2 * kRows], float factor,
                                                 float2 ahead) {
  constexpr int kResults = 2 * kRows;
  constexpr int kLanes = kWarp / kResults;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int index = lane / kLanes;
  float total = sum_each(sum, lane);
  if (args.splits > 1) {
    // Two places in turns: who is a pair ahead does not write where the first warp still reads.
    float* partials = room.partials + turn % 2 * kWarps * kResults;
    if (lane % kLanes == 0) partials[warp * kResults + index] = total;
    named_barrier(1 + slot, args.splits * kWarp);
    if (split != 0) return;
    total = 0;
    for (int i = 0; i < args.splits; ++i) total += partials[(warp + i) * kResults + index];
  }
  total *= factor;
  const float partner = __shfl_xor_sync(kAllLanes, total, kLanes);
  PairRows rows;
  const int row = own_ring_result<kRows>(args, pair, split, &rows);
  if (row >= 0) finish_pair(args, room.places, row, rows, total, partner, ahead);
}

template <typename T, int kRows, bool kFull>
__global__ void __launch_bounds__(kRingWarps<kFull>* kWarp, kRingBlocks<kFull>)
    ring_linear(const __grid_constant__ RingWork work) {
#if __CUDA_ARCH__ >= 900
  constexpr int kWarps = kRingWarps<kFull>;
  extern __shared__ __align__(128) std::byte shared[];
  const FusedLinear& args = work.linear;
  // Small blocks leave room that the next kernel's would take unevenly: some multiprocessors then have twice the work.
  if (kFull) let_next_start();
  const RingRoom<kRows, kWarps> room(shared, work);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarp;
  const int warp = thread / kWarp;
  const int split = warp % args.splits;
  const int slot = warp / args.splits;
  const int stride = static_cast<int>(gridDim.x) * (kWarps / args.splits);
  int pair = slot * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
  RingSource source(work, room.stages + warp * work.stages * kRingStageBytes, room.full + warp * kRingStages<kFull>,
                    split, pair, stride);
  if (lane == 0) {
#pragma unroll
    for (int i = 0; i < kRingStages<kFull>; ++i) barrier_init(source.full + i, 1);
    barrier_fence();
    for (int i = 0; i < work.stages; ++i) source.ask(i);
  }
  if (args.finish == Finish::kQkv && thread < args.rows) {
    room.places[thread] = find_cache_place(args.heads, args.first_row + thread);
  }
  if (args.norm.gain != nullptr) {
    for (int i = thread * kWarp; i < args.cols; i += kWarps * kWarp * kWarp) prefetch(args.norm.gain + i);
  }
  wait_for_previous();
  if (!kFull) let_next_start();
  float2 ahead = load_ring_ahead<kRows>(args, pair, split);
  stage_ring_input(args, room);  // its barrier is also that of the lanes' own barriers
  const float factor = ring_factor(args, room, lane, lane / (kWarp / kRows));
  int place = 0;
  unsigned phase = 0;
  for (int turn = 0; pair < args.pairs; ++turn, pair += stride) {
    const float2 now = ahead;
    ahead = load_ring_ahead<kRows>(args, pair + stride, split);
    float sum[2 * kRows] = {};
    for (int vector = split * kRingSpan; vector < args.row_vectors; vector += args.splits * kRingSpan) {
      barrier_wait(source.full + place, phase);
      multiply_stage<T, kRows>(source.ring + place * kRingStageBytes, room.input + vector * 2, room.input_vectors,
                               args.row_vectors - vector, lane, sum);
      __syncwarp();
      if (lane == 0) source.ask(place);
      if (++place == work.stages) {
        place = 0;
        phase ^= 1;
      }
    }
    finish_ring_pair(args, room, pair, turn, slot, split, sum, factor, now);
  }
#endif
}

// --- the launch

template <typename T, int kRows, bool kFull>
cudaError_t launch_ring(const KernelContext& context, const FusedLinear& args, const RingCut& cut) {
  RingWork work = {.linear = args, .stages = cut.stages};
  work.linear.row_vectors = args.cols / kRingElements;
  work.linear.splits = cut.splits;
  const std::int64_t bytes = ring_bytes(kRows, kFull, cut.stages, work.linear.row_vectors);
  return launch(context, ring_linear<T, kRows, kFull>, dim3(static_cast<unsigned>(cut.blocks)),
                kRingWarps<kFull> * kWarp, static_cast<std::size_t>(bytes), work);
}

template <typename T>
cudaError_t run_ring(const KernelContext& context, const FusedLinear& args) {
  const RingCut cut = cut_ring(context, args);
  if (args.rows <= 1) {
    return cut.full ? launch_ring<T, 1, true>(context, args, cut) : launch_ring<T, 1, false>(context, args, cut);
  }
  return cut.full ? launch_ring<T, 2, true>(context, args, cut) : launch_ring<T, 2, false>(context, args, cut);
}

template <typename T>
cudaError_t prepare_ring(int shared_bytes) {
  constexpr cudaFuncAttribute kAttribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  LANNER_RETURN_IF_CUDA_ERROR((cudaFuncSetAttribute(ring_linear<T, 1, true>, kAttribute, shared_bytes)));
  LANNER_RETURN_IF_CUDA_ERROR((cudaFuncSetAttribute(ring_linear<T, 1, false>, kAttribute, shared_bytes)));
  LANNER_RETURN_IF_CUDA_ERROR((cudaFuncSetAttribute(ring_linear<T, 2, true>, kAttribute, shared_bytes)));
  return cudaFuncSetAttribute(ring_linear<T, 2, false>, kAttribute, shared_bytes);
}

}  // namespace lanner::ops::cuda
