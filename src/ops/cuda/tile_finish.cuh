#pragma once
// What is done with the sums of a tile: see tile_linear.cuh.
//
// A thread finishes four pairs of rows of a token: rows first..first + 3 of a band, `first` 0 or 4, and those eight
// behind them.

#include "ops/cuda/tile_ring.cuh"

namespace lanner::ops::cuda {

enum class TileFinish { kAdd, kGate, kQkv, kOther };

struct FourPairs {
  float4 a;
  float4 b;
};

__device__ __forceinline__ float4 sum_of_fours(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/// Rows row..row + 3 of the output, as far as they exist.
__device__ __forceinline__ float4 load_outputs(const TileWork& work, int row, int token) {
  const float* place = work.linear.out + token * work.linear.out_stride + row;
  float4 values = {0, 0, 0, 0};
  if (work.vectors) {
    if (row < work.width) values = load_fresh(reinterpret_cast<const float4*>(place));
    return values;
  }
  if (row < work.width) values.x = load_fresh(place);
  if (row + 1 < work.width) values.y = load_fresh(place + 1);
  if (row + 2 < work.width) values.z = load_fresh(place + 2);
  if (row + 3 < work.width) values.w = load_fresh(place + 3);
  return values;
}

__device__ __forceinline__ void store_outputs(const TileWork& work, int row, int token, float4 values) {
  float* place = work.linear.out + token * work.linear.out_stride + row;
  if (work.vectors) {
    if (row < work.width) *reinterpret_cast<float4*>(place) = values;
    return;
  }
  if (row < work.width) place[0] = values.x;
  if (row + 1 < work.width) place[1] = values.y;
  if (row + 2 < work.width) place[2] = values.z;
  if (row + 3 < work.width) place[3] = values.w;
}

__device__ __forceinline__ void store_operands(WeightFormat format, float* out, std::int64_t index, float4 v) {
  if (format == WeightFormat::kF16) {
    *reinterpret_cast<uint2*>(reinterpret_cast<__half*>(out) + index) =
        make_uint2(operand_word<__half>(v.x, v.y), operand_word<__half>(v.z, v.w));
  } else if (format == WeightFormat::kBF16) {
    *reinterpret_cast<uint2*>(reinterpret_cast<__nv_bfloat16*>(out) + index) =
        make_uint2(operand_word<__nv_bfloat16>(v.x, v.y), operand_word<__nv_bfloat16>(v.z, v.w));
  } else {
    *reinterpret_cast<float4*>(out + index) = v;
  }
}

__device__ __forceinline__ float4 four_at(const float* place) { return *reinterpret_cast<const float4*>(place); }

/// `vector`, at a multiple of 16 bytes, or null, is added.
__device__ __forceinline__ float4 plus_vector(float4 v, const float* vector) {
  if (vector == nullptr) return v;
  const float4 add = __ldg(reinterpret_cast<const float4*>(vector));
  return make_float4(v.x + add.x, v.y + add.y, v.z + add.z, v.w + add.w);
}

__device__ __forceinline__ float bias_of(const TileWork& work, int row) {
  const FusedLinear& args = work.linear;
  if (!work.biased || row >= work.width) return 0;
  int part = 0;
  while (part + 1 < args.part_count && row >= args.parts[part + 1].first_output) ++part;
  const float* bias = args.parts[part].bias;
  return bias == nullptr ? 0.0F : __ldg(bias + row - args.parts[part].first_output);
}

__device__ __forceinline__ float silu_briefly(float x) { return x * __fdividef(1.0F, 1.0F + __expf(-x)); }

/// Where a band's pairs lie among the heads, for kQkv.
struct HeadPlace {
  int part;  // q, k, v; 3: nowhere
  int head;
  int element;  // of the first pair; its partner lies half a head behind
};
__device__ __forceinline__ HeadPlace head_place(const TileWork& work, int tile, int band, int first) {
  const HeadsOut& heads = work.linear.heads;
  const int in_tile = band / work.head_bands;
  HeadPlace place = {0, tile / work.head_tiles * work.tile_heads + in_tile,
                     (tile % work.head_tiles * work.head_bands + band % work.head_bands) * 8 + first};
  if (in_tile >= work.tile_heads || place.head >= heads.heads + 2 * heads.kv_heads) return {3, 0, 0};
  if (place.head >= heads.heads) {
    place.head -= heads.heads;
    place.part = 1 + place.head / heads.kv_heads;
    place.head %= heads.kv_heads;
  }
  return place;
}

/// What is needed to finish four pairs beside their sums: what the outputs hold, or cosines and sines.
template <TileFinish kFinish>
__device__ __forceinline__ FourPairs load_before(const TileWork& work, int tile, int band, int first, int token,
                                                 const HeadPlace& place) {
  const FusedLinear& args = work.linear;
  FourPairs before = {{0, 0, 0, 0}, {0, 0, 0, 0}};
  if (token >= args.rows) return before;
  if constexpr (kFinish == TileFinish::kAdd) {
    const int row = tile * kTileRows + band * 16 + first;
    before.a = load_outputs(work, row, token);
    before.b = load_outputs(work, row + 8, token);
  } else if constexpr (kFinish == TileFinish::kQkv) {
    if (place.part < 2 && args.heads.rotary_dim > 0) {
      const float* angles =
          args.heads.angles + static_cast<std::int64_t>(args.first_row + token) * args.heads.rotary_dim + place.element;
      before.a = load_fresh(reinterpret_cast<const float4*>(angles));
      before.b = load_fresh(reinterpret_cast<const float4*>(angles + args.heads.rotary_dim / 2));
    }
  }
  return before;
}

__device__ __forceinline__ void store_cached_four(DType dtype, std::byte* base, std::int64_t index, float4 v) {
  if (dtype == DType::kF32) {
    *reinterpret_cast<float4*>(reinterpret_cast<float*>(base) + index) = v;
    return;
  }
  uint2 words;
  if (dtype == DType::kF16) {
    const __half2 pairs[2] = {__floats2half2_rn(v.x, v.y), __floats2half2_rn(v.z, v.w)};
    words = *reinterpret_cast<const uint2*>(pairs);
  } else {
    const __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(v.x, v.y), __floats2bfloat162_rn(v.z, v.w)};
    words = *reinterpret_cast<const uint2*>(pairs);
  }
  *reinterpret_cast<uint2*>(reinterpret_cast<__half*>(base) + index) = words;
}

// What follows takes the sums of rows `first` to `first` + 3 at `a`, in shared memory, and those of the other rows at
// `b`. Code that is seldom run is written once, not unrolled: a tile is finished so fast that fetching the instructions
// would count.

__device__ __forceinline__ void finish_heads(const TileWork& work, int token, const HeadPlace& place,
                                             const CachePlace& cache, const float* a, const float* b,
                                             const FourPairs& angles) {
  const FusedLinear& args = work.linear;
  const HeadsOut& heads = args.heads;
  if (place.part > 2) return;
  const int partner = place.element + heads.head_dim / 2;
  const float* bias = args.parts[place.part].bias;
  const int column = place.head * heads.head_dim;
  float4 x = plus_vector(four_at(a), bias == nullptr ? nullptr : bias + column + place.element);
  float4 y = plus_vector(four_at(b), bias == nullptr ? nullptr : bias + column + partner);
  if (place.part < 2 && heads.rotary_dim > 0) {
    const float4 c = angles.a;
    const float4 s = angles.b;
    const float4 turned = {x.x * c.x - y.x * s.x, x.y * c.y - y.y * s.y, x.z * c.z - y.z * s.z, x.w * c.w - y.w * s.w};
    y = make_float4(y.x * c.x + x.x * s.x, y.y * c.y + x.y * s.y, y.z * c.z + x.z * s.z, y.w * c.w + x.w * s.w);
    x = turned;
  }
  if (place.part == 0) {
    float* q =
        heads.q + (static_cast<std::int64_t>(args.first_row + token) * heads.heads + place.head) * heads.head_dim;
    *reinterpret_cast<float4*>(q + place.element) = x;
    *reinterpret_cast<float4*>(q + partner) = y;
    return;
  }
  if (cache.block == nullptr) return;
  std::byte* head = cache.block + place.head * heads.head_bytes;
  const std::int64_t element = cache.first_element + (place.part == 2 ? kKvBlockTokens * heads.head_dim : 0);
  store_cached_four(heads.dtype, head, element + place.element, x);
  store_cached_four(heads.dtype, head, element + partner, y);
}

__device__ __forceinline__ void finish_gate(const TileWork& work, int row, int token, const float* a, const float* b) {
  const FusedLinear& args = work.linear;
  if (row >= args.parts[0].rows) return;
  const float* biases[2] = {args.parts[0].bias, args.parts[1].bias};
  const std::int64_t index = token * args.out_stride + row;
  if (args.gate == Gate::kSilu && args.out_format != WeightFormat::kF32) {
    const float4 x = plus_vector(four_at(a), biases[0] == nullptr ? nullptr : biases[0] + row);
    const float4 y = plus_vector(four_at(b), biases[1] == nullptr ? nullptr : biases[1] + row);
    store_operands(args.out_format, args.out, index,
                   make_float4(silu_briefly(x.x) * y.x, silu_briefly(x.y) * y.y, silu_briefly(x.z) * y.z,
                               silu_briefly(x.w) * y.w));
    return;
  }
#pragma unroll 1
  for (int i = 0; i < 4; ++i) {
    const float x = a[i] + (biases[0] == nullptr ? 0.0F : __ldg(biases[0] + row + i));
    const float y = b[i] + (biases[1] == nullptr ? 0.0F : __ldg(biases[1] + row + i));
    store_operand(args.out_format, args.out, index + i, gated(args.gate, x) * y);
  }
}

__device__ __forceinline__ void finish_add(const TileWork& work, int row, int token, const float* sums, float4 before) {
  float4 v = four_at(sums);
  if (work.biased) {
    v = make_float4(v.x + bias_of(work, row), v.y + bias_of(work, row + 1), v.z + bias_of(work, row + 2),
                    v.w + bias_of(work, row + 3));
  }
  const float scale = work.linear.scale;
  store_outputs(
      work, row, token,
      make_float4(before.x + scale * v.x, before.y + scale * v.y, before.z + scale * v.z, before.w + scale * v.w));
}

/// Finish::kStore, kHead and kGateAlone.
__device__ __forceinline__ void finish_other(const TileWork& work, int row, int token, const float* sums) {
  const FusedLinear& args = work.linear;
  const bool head = args.finish == Finish::kHead;
  if (args.finish == Finish::kStore || (head && !work.biased && args.scale == 1.0F && args.soft_cap == 0)) {
    store_outputs(work, row, token, four_at(sums));
    return;
  }
#pragma unroll 1
  for (int i = 0; i < 4 && row + i < work.width; ++i) {
    const float x = sums[i] + bias_of(work, row + i);
    const std::int64_t index = token * args.out_stride + row + i;
    store_operand(args.out_format, args.out, index, head ? capped(args.scale * x, args.soft_cap) : gated(args.gate, x));
  }
}

template <TileFinish kFinish>
__device__ __forceinline__ void finish_four(const TileWork& work, int tile, int band, int first, int token,
                                            const HeadPlace& place, const CachePlace& cache, const float* a,
                                            const float* b, const FourPairs& before) {
  const int row = tile * kTileRows + band * 16 + first;
  if constexpr (kFinish == TileFinish::kQkv) {
    finish_heads(work, token, place, cache, a, b, before);
  } else if constexpr (kFinish == TileFinish::kGate) {
    finish_gate(work, (tile * kTileBands + band) * 8 + first, token, a, b);
  } else if constexpr (kFinish == TileFinish::kAdd) {
    finish_add(work, row, token, a, before.a);
    finish_add(work, row + 8, token, b, before.b);
  } else {
    finish_other(work, row, token, a);
    finish_other(work, row + 8, token, b);
  }
}

/// A warpgroup finishes its 64 rows of a tile.
template <int kTokens, TileFinish kFinish>
__device__ __forceinline__ void finish_rounds(const TileWork& work, const TileRing<kTokens>& ring,
                                              const TileOfWork& tile, const float (&sum)[kTokens / 2]) {
  using Shape = TileShape<kTokens>;
  constexpr bool kLoads = kFinish == TileFinish::kAdd || kFinish == TileFinish::kQkv;
  constexpr int kAtOnce = kWarpgroup / 8;  // tokens that the threads finish at once
  constexpr int kUnits = Shape::kRound / kAtOnce;
  const int group = static_cast<int>(threadIdx.x) / kWarpgroup;
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int lane = thread % kWarp;
  const int own_row = thread / kWarp * 16 + lane / 4;
  const int band = thread % 8 / 2;  // of the warpgroup
  const int first = thread % 2 * 4;
  const int first_token = tile.token * kTokens;
  float* room = ring.rooms + group * Shape::kRound * Shape::kRoomStride;
  HeadPlace place = {};
  if constexpr (kFinish == TileFinish::kQkv) place = head_place(work, tile.weight, group * 4 + band, first);
  FourPairs before[kUnits];
  FourPairs next[kUnits];
  const auto load_round = [&](int from) {
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      next[i] = load_before<kFinish>(work, tile.weight, group * 4 + band, first,
                                     first_token + from + i * kAtOnce + thread / 8, place);
    }
  };
  load_round(0);
#pragma unroll 1
  for (int round = 0; round < Shape::kRounds; ++round) {
    const int from = round * Shape::kRound;
    if (first_token + from >= work.linear.rows) break;
#pragma unroll
    for (int i = 0; i < kUnits; ++i) before[i] = next[i];
    if (kLoads && round + 1 < Shape::kRounds) load_round(from + Shape::kRound);
    named_barrier(1 + group, kWarpgroup);  // the room is free
#pragma unroll
    for (int r = 0; r < Shape::kRounds; ++r) {  // registers have no index that is not known here
      if (r != round) continue;
#pragma unroll
      for (int j = 0; j < Shape::kRound / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          room[(j * 8 + lane % 4 * 2 + i % 2) * Shape::kRoomStride + own_row + i / 2 * 8] =
              sum[(r * Shape::kRound / 8 + j) * 4 + i];
        }
      }
    }
    named_barrier(1 + group, kWarpgroup);
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      const int at = i * kAtOnce + thread / 8;
      if (first_token + from + at >= work.linear.rows) continue;
      const float* values = room + at * Shape::kRoomStride + band * 16 + first;
      finish_four<kFinish>(work, tile.weight, group * 4 + band, first, first_token + from + at, place,
                           ring.places[from + at], values, values + 8, before[i]);
    }
  }
}

/// The blocks of a cluster add up, and each finishes its share of the bands. The ring is not in use any more.
template <int kTokens, TileFinish kFinish>
__device__ __forceinline__ void finish_together(const TileWork& work, const TileRing<kTokens>& ring,
                                                const TileOfWork& tile, int rank, const float (&sum)[kTokens / 2]) {
  using Shape = TileShape<kTokens>;
  constexpr int kMostSplit = 8;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarp;
  const int own_row = thread / kWarp * 16 + lane / 4;
  const int bands = kTileBands / work.split;
  const int units = min(kTokens, work.linear.rows - tile.token * kTokens) * bands * 2;
  const auto band_of = [&](int unit) { return rank * bands + unit / 2 % bands; };
  const auto token_of = [&](int unit) { return unit / 2 / bands; };  // in the tile
  const auto place_of = [&](int unit) {
    return kFinish == TileFinish::kQkv ? head_place(work, tile.weight, band_of(unit), unit % 2 * 4) : HeadPlace{};
  };
  const auto load = [&](int unit) {
    return load_before<kFinish>(work, tile.weight, band_of(unit), unit % 2 * 4, tile.token * kTokens + token_of(unit),
                                place_of(unit));
  };
  FourPairs before = {};
  if (thread < units) before = load(thread);
  float* all = ring.sums();
  named_barrier(kWorkersBarrier, kTileWorkers);  // both warpgroups have read what they overwrite now
#pragma unroll
  for (int j = 0; j < kTokens / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      all[(j * 8 + lane % 4 * 2 + i % 2) * Shape::kSumStride + own_row + i / 2 * 8] = sum[j * 4 + i];
    }
  }
  __syncwarp();
  cluster_barrier();
  for (int unit = thread; unit < units; unit += kTileWorkers) {
    if (unit != thread) before = load(unit);
    const float* place = all + token_of(unit) * Shape::kSumStride + band_of(unit) * 16 + unit % 2 * 4;
    FourPairs part[kMostSplit];
#pragma unroll
    for (int r = 0; r < kMostSplit; ++r) {
      part[r] = {};
      if (r < work.split) part[r] = {load_four_from_block(place, r), load_four_from_block(place + 8, r)};
    }
    FourPairs total = {};
#pragma unroll
    for (int r = 0; r < kMostSplit; ++r) {
      total.a = sum_of_fours(total.a, part[r].a);
      total.b = sum_of_fours(total.b, part[r].b);
    }
    float* own = ring.rooms + thread * 8;  // nobody else's
    *reinterpret_cast<float4*>(own) = total.a;
    *reinterpret_cast<float4*>(own + 4) = total.b;
    finish_four<kFinish>(work, tile.weight, band_of(unit), unit % 2 * 4, tile.token * kTokens + token_of(unit),
                         place_of(unit), ring.places[token_of(unit)], own, own + 4, before);
  }
}

template <int kTokens, TileFinish kFinish>
__device__ __forceinline__ void finish_tile(const TileWork& work, const TileRing<kTokens>& ring, const TileOfWork& tile,
                                            int rank, const float (&sum)[kTokens / 2]) {
  if (work.split > 1) {
    finish_together<kTokens, kFinish>(work, ring, tile, rank, sum);
  } else {
    finish_rounds<kTokens, kFinish>(work, ring, tile, sum);
  }
}

}  // namespace lanner::ops::cuda
