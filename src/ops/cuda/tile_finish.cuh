#pragma once
// What is done with the sums of a tile: see tile_linear.cuh.
//
// A lane holds, of a band of 16 rows and of eight tokens, rows r and r + 8 of two neighbouring tokens: four numbers
// (warpgroup.cuh). Rotation and gate need just these two rows, so that everything is finished where it is. Outputs then
// go through a room in shared memory, a row of it a token, so that neighbouring lanes write neighbouring 16 bytes;
// there are two rooms, so that one barrier for each is enough. Where a cluster has added up there is less, and it is
// written directly.

#include "ops/cuda/tile_ring.cuh"

namespace lanner::ops::cuda {

enum class TileFinish { kAdd, kGate, kQkv, kOther };

__device__ __forceinline__ float4 sum_of_fours(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/// In which type the outputs are, but for kQkv.
__device__ __forceinline__ WeightFormat pair_format(const FusedLinear& args, TileFinish finish) {
  return finish == TileFinish::kGate || args.finish == Finish::kGateAlone ? args.out_format : WeightFormat::kF32;
}

__device__ __forceinline__ float bias_of(const TileWork& work, int row) {
  const FusedLinear& args = work.linear;
  if (!work.biased || row >= work.width) return 0;
  int part = 0;
  while (part + 1 < args.part_count && row >= args.parts[part + 1].first_output) ++part;
  const float* bias = args.parts[part].bias;
  return bias == nullptr ? 0.0F : __ldg(bias + row - args.parts[part].first_output);
}

/// What another lane of the warp has.
__device__ __forceinline__ std::byte* from_lane(std::byte* place, int lane) {
  const auto bits = static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(place));
  return reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(__shfl_sync(kAllLanes, bits, lane)));
}

__device__ __forceinline__ float silu_briefly(float x) { return x * __fdividef(1.0F, 1.0F + __expf(-x)); }

/// Where a band's rows lie among the heads, for kQkv.
struct HeadPlace {
  int part;  // q, k, v; 3: nowhere
  int head;
  int element;  // of the first row; its partner lies half a head behind
};
__device__ __forceinline__ HeadPlace head_place(const TileWork& work, int tile, int band, int row) {
  const HeadsOut& heads = work.linear.heads;
  const int in_tile = band / work.head_bands;
  HeadPlace place = {0, tile / work.head_tiles * work.tile_heads + in_tile,
                     (tile % work.head_tiles * work.head_bands + band % work.head_bands) * 8 + row};
  if (in_tile >= work.tile_heads || place.head >= heads.heads + 2 * heads.kv_heads) return {3, 0, 0};
  if (place.head >= heads.heads) {
    place.head -= heads.heads;
    place.part = 1 + place.head / heads.kv_heads;
    place.head %= heads.kv_heads;
  }
  return place;
}

__device__ __forceinline__ DType type_of_part(const TileWork& work, int part) {
  return part == 0 ? DType::kF32 : work.linear.heads.dtype;
}

/// Where a token's key of head 0 is kept, or null.
__device__ __forceinline__ std::byte* key_place(const HeadsOut& heads, std::int64_t row) {
  const CachePlace place = find_cache_place(heads, row);
  return place.block == nullptr ? nullptr : place.block + place.first_element * (heads.dtype == DType::kF32 ? 4 : 2);
}

/// A token's row of the head, or null. `key`: key_place().
__device__ __forceinline__ std::byte* head_row(const TileWork& work, const HeadPlace& place, int token,
                                               std::byte* key) {
  const FusedLinear& args = work.linear;
  const HeadsOut& heads = args.heads;
  if (place.part == 0) {
    const std::int64_t row = (static_cast<std::int64_t>(args.first_row) + token) * heads.heads + place.head;
    return reinterpret_cast<std::byte*>(heads.q + row * heads.head_dim);
  }
  if (key == nullptr) return nullptr;
  const std::int64_t values = place.part == 2 ? kKvBlockTokens * heads.head_dim : 0;
  return key + place.head * heads.head_bytes + values * (heads.dtype == DType::kF32 ? 4 : 2);
}

/// The two rows that a lane holds of a band: what is the same for all tokens.
struct TilePair {
  int row;          // of the output; the other is `row` + 8 (kAdd, kOther)
  int room_offset;  // bytes, in a token's row of a room
  int room_apart;   // from there to the other
  WeightFormat format;
  HeadPlace head;  // kQkv
  float bias_a;
  float bias_b;
};

template <TileFinish kFinish>
__device__ __forceinline__ TilePair pair_of(const TileWork& work, int tile, int band, int row) {
  const FusedLinear& args = work.linear;
  TilePair pair = {};
  pair.format = pair_format(args, kFinish);
  const int bytes = pair.format == WeightFormat::kF32 ? 4 : 2;
  if constexpr (kFinish == TileFinish::kQkv) {
    pair.head = head_place(work, tile, band, row);
    const int size = type_of_part(work, pair.head.part) == DType::kF32 ? 4 : 2;
    pair.room_apart = work.head_bands * 8 * size;
    pair.room_offset = band / work.head_bands * work.head_bands * 64 + (band % work.head_bands * 8 + row) * size;
    const float* bias = pair.head.part < 3 ? args.parts[pair.head.part].bias : nullptr;
    if (bias == nullptr) return pair;
    const int column = pair.head.head * args.heads.head_dim + pair.head.element;
    pair.bias_a = __ldg(bias + column);
    pair.bias_b = __ldg(bias + column + args.heads.head_dim / 2);
  } else if constexpr (kFinish == TileFinish::kGate) {
    pair.row = (tile * kTileBands + band) * 8 + row;
    pair.room_offset = (band * 8 + row) * bytes;
    if (pair.row >= args.parts[0].rows) return pair;
    if (args.parts[0].bias != nullptr) pair.bias_a = __ldg(args.parts[0].bias + pair.row);
    if (args.parts[1].bias != nullptr) pair.bias_b = __ldg(args.parts[1].bias + pair.row);
  } else {
    pair.row = tile * kTileRows + band * 16 + row;
    pair.room_offset = (band * 16 + row) * bytes;
    pair.room_apart = 8 * bytes;
    pair.bias_a = bias_of(work, pair.row);
    pair.bias_b = bias_of(work, pair.row + 8);
  }
  return pair;
}

/// What two tokens need beside their sums: what the outputs hold (kAdd), in the order of the sums, or (kQkv) cosines
/// and then sines.
template <TileFinish kFinish>
__device__ __forceinline__ void load_before(const TileWork& work, const TilePair& pair, int token, float* before) {
  const FusedLinear& args = work.linear;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    before[i] = before[2 + i] = 0;
    if (token + i >= args.rows) continue;
    if constexpr (kFinish == TileFinish::kAdd) {
      const float* place = args.out + (token + i) * args.out_stride + pair.row;
      if (pair.row < work.width) before[i] = load_fresh(place);
      if (pair.row + 8 < work.width) before[2 + i] = load_fresh(place + 8);
    } else if constexpr (kFinish == TileFinish::kQkv) {
      if (pair.head.part > 1 || args.heads.rotary_dim == 0) continue;
      const float* angles = args.heads.angles +
                            static_cast<std::int64_t>(args.first_row + token + i) * args.heads.rotary_dim +
                            pair.head.element;
      before[i] = load_fresh(angles);
      before[2 + i] = load_fresh(angles + args.heads.rotary_dim / 2);
    }
  }
}

/// gate(a) * b at v[4i] and v[4i + 1].
template <int kCount>
__device__ __forceinline__ void gate_values(const TileWork& work, float (&v)[kCount]) {
  const FusedLinear& args = work.linear;
  if (args.gate == Gate::kSilu && args.out_format != WeightFormat::kF32) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      v[i] = silu_briefly(v[i]) * v[i + 2];
      v[i + 1] = silu_briefly(v[i + 1]) * v[i + 3];
    }
    return;
  }
  float a[kCount / 2];
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) a[i] = v[i / 2 * 4 + i % 2];
  each_in_turn(a, [&](float x) { return gated(args.gate, x); });
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) v[i / 2 * 4 + i % 2] = a[i] * v[i / 2 * 4 + 2 + i % 2];
}

/// Sums, four for each two tokens, become outputs: of kGate the first two of four.
template <TileFinish kFinish, int kCount>
__device__ __forceinline__ void finish_values(const TileWork& work, const TilePair& pair, float (&v)[kCount],
                                              const float (&before)[kCount]) {
  const FusedLinear& args = work.linear;
  if (work.biased) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] += i % 4 < 2 ? pair.bias_a : pair.bias_b;
  }
  if constexpr (kFinish == TileFinish::kAdd) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = before[i] + args.scale * v[i];
  } else if constexpr (kFinish == TileFinish::kGate) {
    gate_values(work, v);
  } else if constexpr (kFinish == TileFinish::kQkv) {
    if (pair.head.part > 1 || args.heads.rotary_dim == 0) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i % 4 > 1) continue;
      const float x = v[i];
      const float y = v[i + 2];
      v[i] = x * before[i] - y * before[i + 2];
      v[i + 2] = y * before[i] + x * before[i + 2];
    }
  } else if (args.finish == Finish::kGateAlone) {
    each_in_turn(v, [&](float x) { return gated(args.gate, x); });
  } else if (args.finish == Finish::kHead && (args.scale != 1.0F || args.soft_cap != 0)) {
    each_in_turn(v, [&](float x) { return capped(args.scale * x, args.soft_cap); });
  }
}

/// An output at base[index], of the pair's type.
template <TileFinish kFinish>
__device__ __forceinline__ void store_output(const TileWork& work, const TilePair& pair, std::byte* base,
                                             std::int64_t index, float value) {
  if constexpr (kFinish == TileFinish::kQkv) {
    store_cached(type_of_part(work, pair.head.part), base, index, value);
  } else if constexpr (kFinish == TileFinish::kAdd) {
    reinterpret_cast<float*>(base)[index] = value;
  } else {
    store_operand(pair.format, reinterpret_cast<float*>(base), index, value);
  }
}

// --- through a room

/// Four outputs to the two tokens' rows of a room.
template <TileFinish kFinish, int kRowBytes>
__device__ __forceinline__ void put_in_room(const TileWork& work, const TilePair& pair, std::byte* row,
                                            const float* v) {
  if (kFinish == TileFinish::kQkv && pair.head.part > 2) return;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    std::byte* place = row + i * kRowBytes + pair.room_offset;
    store_output<kFinish>(work, pair, place, 0, v[i]);
    if (kFinish != TileFinish::kGate) store_output<kFinish>(work, pair, place + pair.room_apart, 0, v[2 + i]);
  }
}

/// 16 bytes of a room to the output.
__device__ __forceinline__ void copy_vector(std::byte* to, const std::byte* from) {
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
}

/// What a lane copies of each token's row of a room, for kQkv: the halves of a head lie one behind the other there.
struct HeadPiece {
  bool any;
  bool cached;
  std::int64_t offset;  // bytes, from the token's queries or from its key_place()
};
__device__ __forceinline__ HeadPiece head_piece(const TileWork& work, int tile) {
  const HeadsOut& heads = work.linear.heads;
  const int room = work.head_bands * 64;  // of a head
  const int byte = static_cast<int>(threadIdx.x) % kWarp * 16 % room;
  const HeadPlace place =
      head_place(work, tile, static_cast<int>(threadIdx.x) % kWarp * 16 / room * work.head_bands, 0);
  const int size = type_of_part(work, place.part) == DType::kF32 ? 4 : 2;
  const int half = work.head_bands * 8 * size;
  const int second = byte >= half ? 1 : 0;
  HeadPiece piece = {place.part < 3 && byte < 2 * half, place.part > 0, 0};
  piece.offset = (place.element + second * heads.head_dim / 2) * size + byte - second * half;
  if (place.part == 0) piece.offset += place.head * heads.head_dim * size;
  if (place.part > 0) piece.offset += place.head * heads.head_bytes;
  if (place.part == 2) piece.offset += kKvBlockTokens * heads.head_dim * size;
  return piece;
}

/// `kCount` tokens' outputs from their rows of a room, by a warp. `added_to`: of kAdd. `piece`, and key_place() of the
/// tokens: of kQkv.
template <TileFinish kFinish, int kCount, int kRowBytes>
__device__ __forceinline__ void copy_out(const TileWork& work, int tile, int token, const std::byte* rows,
                                         const float4 (&added_to)[kCount], const HeadPiece& piece,
                                         std::byte* const (&keys)[kCount]) {
  const FusedLinear& args = work.linear;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  auto* out = reinterpret_cast<std::byte*>(args.out);
  const bool wide = args.out_format == WeightFormat::kF32;
  if constexpr (kFinish == TileFinish::kQkv) {
    const std::int64_t row_bytes = static_cast<std::int64_t>(args.heads.heads) * args.heads.head_dim * 4;
    auto* queries = reinterpret_cast<std::byte*>(args.heads.q) + (args.first_row + token) * row_bytes;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (!piece.any || token + i >= args.rows || (piece.cached && keys[i] == nullptr)) continue;
      copy_vector((piece.cached ? keys[i] : queries + i * row_bytes) + piece.offset, rows + i * kRowBytes + lane * 16);
    }
  } else if constexpr (kFinish == TileFinish::kGate) {
    const int shift = wide ? 4 : 3;  // a token's outputs are so many lanes'
    for (int i = lane; i < kCount << shift; i += kWarp) {
      const int vector = i & ((1 << shift) - 1);
      const int column = tile * kTileRows / 2 + vector * (wide ? 4 : 8);
      const int row = token + (i >> shift);
      if (row >= args.rows || column >= args.parts[0].rows) continue;
      copy_vector(out + (row * args.out_stride + column) * (wide ? 4 : 2),
                  rows + (i >> shift) * kRowBytes + vector * 16);
    }
  } else {
    const int size = pair_format(args, kFinish) == WeightFormat::kF32 ? 4 : 2;
    const int column = tile * kTileRows + lane * (16 / size);
    if (column >= work.width || lane * 16 >= kTileRows * size) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (token + i >= args.rows) continue;
      float4 v = *reinterpret_cast<const float4*>(rows + i * kRowBytes + lane * 16);
      if constexpr (kFinish == TileFinish::kAdd) v = sum_of_fours(v, added_to[i]);
      *reinterpret_cast<float4*>(out + ((token + i) * args.out_stride + column) * size) = v;
    }
  }
}

/// The same of all tokens of a room, by all threads, where outputs do not lie at multiples of 16 bytes.
template <TileFinish kFinish, int kRound, int kRowBytes>
__device__ __forceinline__ void write_out(const TileWork& work, int tile, int token, const std::byte* room) {
  const FusedLinear& args = work.linear;
  const int tokens = min(kRound, args.rows - token);
  const bool narrow = args.finish == Finish::kGateAlone && args.out_format != WeightFormat::kF32;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < tokens * kTileRows; i += kTileWorkers) {
    const int row = tile * kTileRows + i % kTileRows;
    if (row >= work.width) continue;
    const std::byte* from = room + i / kTileRows * kRowBytes;
    const std::int64_t index = (token + i / kTileRows) * args.out_stride + row;
    if (narrow) {
      reinterpret_cast<std::uint16_t*>(args.out)[index] = reinterpret_cast<const std::uint16_t*>(from)[i % kTileRows];
      continue;
    }
    const float value = reinterpret_cast<const float*>(from)[i % kTileRows];
    args.out[index] = kFinish == TileFinish::kAdd ? load_fresh(args.out + index) + value : value;
  }
}

/// The sums of a tile, some tokens at a time. `key`: key_place() of own_token(). *rooms_used: of all tiles.
template <int kTokens, TileFinish kFinish>
__device__ __forceinline__ void finish_alone(const TileWork& work, const TileRing<kTokens>& ring,
                                             const TileOfWork& tile, std::byte* key, int* rooms_used,
                                             const float (&sum)[kTokens / 2]) {
  using Shape = TileShape<kTokens>;
  constexpr int kCount = Shape::kRound / 2;
  constexpr int kOfWarp = Shape::kRoundOfWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first_token = tile.token * kTokens;
  const TilePair pair = pair_of<kFinish>(work, tile.weight, warp, lane / 4);
  HeadPiece piece = {};
  if constexpr (kFinish == TileFinish::kQkv) piece = head_piece(work, tile.weight);
  float angles[kCount] = {};
  const int column = tile.weight * kTileRows + lane * 4;
  float4 held[kOfWarp] = {};  // by the outputs that the lane writes
  const auto load_round = [&](int from) {
    if constexpr (kFinish == TileFinish::kQkv) {
#pragma unroll
      for (int j = 0; j < kCount / 4; ++j) {
        load_before<kFinish>(work, pair, first_token + from + j * 8 + lane % 4 * 2, angles + 4 * j);
      }
    } else if constexpr (kFinish == TileFinish::kAdd) {
#pragma unroll
      for (int i = 0; i < kOfWarp; ++i) {
        const std::int64_t token = first_token + from + warp * kOfWarp + i;
        if (!work.vectors || token >= work.linear.rows || column >= work.width) continue;
        held[i] =
            load_fresh(reinterpret_cast<const float4*>(work.linear.out + token * work.linear.out_stride + column));
      }
    }
  };
  load_round(0);
#pragma unroll 1
  for (int round = 0; round < Shape::kRounds; ++round, ++*rooms_used) {
    const int from = round * Shape::kRound;
    if (first_token + from >= work.linear.rows) break;
    float v[kCount];
#pragma unroll
    for (int r = 0; r < Shape::kRounds; ++r) {  // registers have no index that is not known here
      if (r != round) continue;
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[i] = sum[r * kCount + i];
    }
    float before[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) before[i] = angles[i];
    float4 added_to[kOfWarp];
#pragma unroll
    for (int i = 0; i < kOfWarp; ++i) added_to[i] = held[i];
    if (round + 1 < Shape::kRounds) load_round(from + Shape::kRound);
    finish_values<kFinish>(work, pair, v, before);
    std::byte* room = ring.rooms + *rooms_used % 2 * Shape::kRoomBytes;
#pragma unroll
    for (int j = 0; j < kCount / 4; ++j) {
      put_in_room<kFinish, Shape::kRowBytes>(work, pair, room + (j * 8 + lane % 4 * 2) * Shape::kRowBytes, v + 4 * j);
    }
    named_barrier(kWorkersBarrier, kTileWorkers);  // who is through it has read the other room
    std::byte* keys[kOfWarp] = {};
    if constexpr (kFinish == TileFinish::kQkv) {
#pragma unroll
      for (int i = 0; i < kOfWarp; ++i) keys[i] = from_lane(key, round * kOfWarp + i);
    }
    if (work.vectors) {
      copy_out<kFinish, kOfWarp, Shape::kRowBytes>(work, tile.weight, first_token + from + warp * kOfWarp,
                                                   room + warp * kOfWarp * Shape::kRowBytes, added_to, piece, keys);
    } else {
      write_out<kFinish, Shape::kRound, Shape::kRowBytes>(work, tile.weight, first_token + from, room);
    }
  }
}

/// The token of a tile, or kTokens, whose place a lane keeps for its warp: those that the warp writes out, round by
/// round.
template <int kTokens>
__device__ __forceinline__ int own_token() {
  using Shape = TileShape<kTokens>;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int round = lane / Shape::kRoundOfWarp;
  return round < Shape::kRounds ? round * Shape::kRound + warp * Shape::kRoundOfWarp + lane % Shape::kRoundOfWarp
                                : kTokens;
}

// --- of a cluster

template <TileFinish kFinish>
__device__ __forceinline__ void put_out(const TileWork& work, const TilePair& pair, int token, std::byte* const* keys,
                                        const float* v) {
  const FusedLinear& args = work.linear;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (token + i >= args.rows) continue;
    if constexpr (kFinish == TileFinish::kQkv) {
      if (pair.head.part > 2) continue;
      std::byte* row = head_row(work, pair.head, token + i, keys[i]);
      if (row == nullptr) continue;
      store_output<kFinish>(work, pair, row, pair.head.element, v[i]);
      store_output<kFinish>(work, pair, row, pair.head.element + args.heads.head_dim / 2, v[2 + i]);
    } else {
      auto* out = reinterpret_cast<std::byte*>(args.out);
      const std::int64_t index = (token + i) * args.out_stride + pair.row;
      const int width = kFinish == TileFinish::kGate ? args.parts[0].rows : work.width;
      if (pair.row < width) store_output<kFinish>(work, pair, out, index, v[i]);
      if (kFinish != TileFinish::kGate && pair.row + 8 < width) {
        store_output<kFinish>(work, pair, out, index + 8, v[2 + i]);
      }
    }
  }
}

/// The blocks of a cluster that share a tile's steps add up, in the order of their shares, and each finishes its part
/// of the bands. The ring is not in use any more.
template <int kTokens, TileFinish kFinish, int kSplit>
__device__ __forceinline__ void finish_together(const TileWork& work, const TileRing<kTokens>& ring,
                                                const TileSeat& seat, const TileOfWork& tile,
                                                const float (&sum)[kTokens / 2]) {
  constexpr int kSums = TileShape<kTokens>::kSums;
  constexpr int kBands = kTileBands / kSplit;  // that a block finishes, each by kSplit warps
  constexpr int kOfWarp = (kSums + kSplit - 1) / kSplit;
  constexpr int kAtOnce = kOfWarp < 16 / kSplit ? kOfWarp : 16 / kSplit;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int band = seat.rank * kBands + warp % kBands;
  const TilePair pair = pair_of<kFinish>(work, tile.weight, band, lane / 4);
  auto* all = reinterpret_cast<float4*>(ring.sums());
  named_barrier(kWorkersBarrier, kTileWorkers);  // both warpgroups have read what they overwrite now
#pragma unroll
  for (int j = 0; j < kSums; ++j) {
    all[(warp * kSums + j) * kWarp + lane] = make_float4(sum[4 * j], sum[4 * j + 1], sum[4 * j + 2], sum[4 * j + 3]);
  }
  float before[kAtOnce * 4];
  const auto in_tile = [&](int i) { return (warp / kBands + i * kSplit) * 8 + lane % 4 * 2; };  // token
  const auto load_some = [&](int first) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      load_before<kFinish>(work, pair, tile.token * kTokens + in_tile(first + i), before + 4 * i);
    }
  };
  load_some(0);
  __syncwarp();
  cluster_barrier();
#pragma unroll 1
  for (int first = 0; first < kOfWarp; first += kAtOnce) {
    if (first > 0) load_some(first);
    float4 part[kAtOnce][kSplit];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int j = warp / kBands + (first + i) * kSplit;
#pragma unroll
      for (int r = 0; r < kSplit; ++r) {
        part[i][r] = {0, 0, 0, 0};
        if (j >= kSums) continue;
        part[i][r] =
            load_four_from_block(ring.sums() + ((band * kSums + j) * kWarp + lane) * 4, r * work.pair + seat.member);
      }
    }
    float v[kAtOnce * 4];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      float4 total = part[i][0];
#pragma unroll
      for (int r = 1; r < kSplit; ++r) total = sum_of_fours(total, part[i][r]);
      *reinterpret_cast<float4*>(v + 4 * i) = total;
    }
    finish_values<kFinish>(work, pair, v, before);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int token = in_tile(first + i);
      if (token >= kTokens) continue;
      put_out<kFinish>(work, pair, tile.token * kTokens + token, ring.keys() + token, v + 4 * i);
    }
  }
}

template <int kTokens, TileFinish kFinish>
__device__ __forceinline__ void finish_tile(const TileWork& work, const TileRing<kTokens>& ring, const TileSeat& seat,
                                            const TileOfWork& tile, std::byte* key, int* rooms_used,
                                            const float (&sum)[kTokens / 2]) {
  switch (work.split) {
    case 1: finish_alone<kTokens, kFinish>(work, ring, tile, key, rooms_used, sum); break;
    case 2: finish_together<kTokens, kFinish, 2>(work, ring, seat, tile, sum); break;
    case 4: finish_together<kTokens, kFinish, 4>(work, ring, seat, tile, sum); break;
    default: finish_together<kTokens, kFinish, 8>(work, ring, seat, tile, sum); break;
  }
}

}  // namespace lanner::ops::cuda
