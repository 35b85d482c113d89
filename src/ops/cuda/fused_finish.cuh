#pragma once
// What the kernels of linear operations for a few rows share: which two rows of the weights belong together, sums over
// a warp, and what becomes of a pair of products.

#include "ops/cuda/device.cuh"
#include "ops/cuda/fused_linear.h"
#include "ops/cuda/heads.cuh"

namespace lanner::ops::cuda {

/// Two weight rows, by part and row of it; row -1: none.
struct PairRows {
  int part[2];
  int row[2];
};

__device__ __forceinline__ PairRows locate_pair(const FusedLinear& args, int pair) {
  if (pair >= args.pairs) return {{0, 0}, {-1, -1}};
  if (args.finish == Finish::kGate) return {{0, 1}, {pair, pair}};
  int part = 0;
  while (part + 1 < args.part_count && pair >= args.parts[part + 1].first_pair) ++part;
  const int local = pair - args.parts[part].first_pair;
  if (args.finish == Finish::kQkv) {
    const int half = args.heads.head_dim / 2;
    const int base = local / half * args.heads.head_dim;
    const int2 elements = head_pair(args.heads, local % half);
    return {{part, part}, {base + elements.x, base + elements.y}};
  }
  return {{part, part}, {2 * local, 2 * local + 1 < args.parts[part].rows ? 2 * local + 1 : -1}};
}

/// Sums each of kCount numbers over the lanes of a warp; lane L gets the one with index L / (32 / kCount).
template <int kCount, int kOffset = kWarp / 2>
__device__ __forceinline__ float sum_each(const float (&value)[kCount], int lane) {
  if constexpr (kOffset == 0) {
    return value[0];
  } else if constexpr (kCount == 1) {
    const float sum[1] = {value[0] + __shfl_xor_sync(kAllLanes, value[0], kOffset)};
    return sum_each<1, kOffset / 2>(sum, lane);
  } else {
    const bool upper = (lane & kOffset) != 0;
    float sum[kCount / 2];
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      const float mine = upper ? value[i + kCount / 2] : value[i];
      const float others = upper ? value[i] : value[i + kCount / 2];
      sum[i] = mine + __shfl_xor_sync(kAllLanes, others, kOffset);
    }
    return sum_each<kCount / 2, kOffset / 2>(sum, lane);
  }
}

/// What will be needed to finish a pair, asked for while it is computed: what its outputs hold, or its rotation.
__device__ __forceinline__ float2 load_ahead(const FusedLinear& args, int row, const PairRows& rows) {
  if (rows.row[0] < 0) return {0, 0};
  const FusedPart& part = args.parts[rows.part[0]];
  if (args.finish == Finish::kQkv) {
    return load_turn(args.heads, args.first_row + row, part.index, rows.row[0] % args.heads.head_dim);
  }
  if (args.finish != Finish::kAdd) return {0, 0};
  const float* out = args.out + row * args.out_stride + part.first_output + rows.row[0];
  return {load_fresh(out), rows.row[1] >= 0 ? load_fresh(out + 1) : 0.0F};
}

/// One row's products of a pair, already divided by the root mean square.
__device__ __forceinline__ void finish_pair(const FusedLinear& args, const CachePlace* places, int row,
                                            const PairRows& rows, float a, float b, float2 ahead) {
  const FusedPart& first = args.parts[rows.part[0]];
  const FusedPart& second = args.parts[rows.part[1]];
  const bool both = rows.row[1] >= 0;
  if (args.finish != Finish::kStore) {
    if (first.bias != nullptr) a += __ldg(first.bias + rows.row[0]);
    if (both && second.bias != nullptr) b += __ldg(second.bias + rows.row[1]);
  }
  if (args.finish == Finish::kQkv) {
    const int head_dim = args.heads.head_dim;
    write_head_pair(args.heads, places[row], args.first_row + row, first.index, rows.row[0] / head_dim,
                    rows.row[0] % head_dim, rows.row[1] % head_dim, a, b, ahead);
    return;
  }
  float* out = args.out + row * args.out_stride + first.first_output + rows.row[0];
  switch (args.finish) {
    case Finish::kStore:
      out[0] = a;
      if (both) out[1] = b;
      break;
    case Finish::kAdd:
      out[0] = ahead.x + args.scale * a;
      if (both) out[1] = ahead.y + args.scale * b;
      break;
    case Finish::kGate: out[0] = gated(args.gate, a) * b; break;
    case Finish::kGateAlone:
      out[0] = gated(args.gate, a);
      if (both) out[1] = gated(args.gate, b);
      break;
    case Finish::kHead:
      out[0] = capped(args.scale * a, args.soft_cap);
      if (both) out[1] = capped(args.scale * b, args.soft_cap);
      break;
    case Finish::kQkv: break;
  }
}

}  // namespace lanner::ops::cuda
