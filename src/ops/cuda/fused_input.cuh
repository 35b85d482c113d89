#pragma once
// The input of the kernels of fused_linear.cuh, brought into shared memory in the order in which they multiply it.

#include "ops/cuda/device.cuh"
#include "ops/cuda/fused_linear.h"
#include "ops/cuda/heads.cuh"

namespace lanner::ops::cuda {

inline constexpr int kFusedThreads = 256;
inline constexpr int kFusedWarps = kFusedThreads / kWarp;

/// How a format's 16 bytes become columns: kElements of them, four at a time.
template <WeightFormat kFormat>
struct Decoder;

template <>
struct Decoder<WeightFormat::kF32> {
  static constexpr int kElements = 4;
  __device__ static float4 four(const std::uint32_t (&words)[4], int) {
    return {__uint_as_float(words[0]), __uint_as_float(words[1]), __uint_as_float(words[2]), __uint_as_float(words[3])};
  }
};

template <typename T>
struct HalfDecoder {
  static constexpr int kElements = 8;
  __device__ static float4 four(const std::uint32_t (&words)[4], int j) {
    const float2 low = widen_word<T>(words[2 * j]);
    const float2 high = widen_word<T>(words[2 * j + 1]);
    return {low.x, low.y, high.x, high.y};
  }
};
template <>
struct Decoder<WeightFormat::kF16> : HalfDecoder<__half> {};
template <>
struct Decoder<WeightFormat::kBF16> : HalfDecoder<__nv_bfloat16> {};

template <>
struct Decoder<WeightFormat::kInt8> {
  static constexpr int kElements = 16;
  /// Byte b under the exponent of 2^23 is the number 2^23 + b.
  __device__ static float one(std::uint32_t word, int byte) {
    return __uint_as_float(__byte_perm(word, 0x4B000000U, 0x7440U + static_cast<unsigned>(byte))) - 8388736.0F;
  }
  __device__ static float4 four(const std::uint32_t (&words)[4], int j) {
    return {one(words[j], 0), one(words[j], 1), one(words[j], 2), one(words[j], 3)};
  }
};

template <>
struct Decoder<WeightFormat::kInt4> {
  static constexpr int kElements = 32;
  /// Nibbles 0 and 4 under fp16's exponent of 1024 are 1024 + code; nibbles 1 and 5, of 64 (steps of 1/16): 64 + code.
  __device__ static float4 four(const std::uint32_t (&words)[4], int j) {
    const std::uint32_t codes = words[j / 2] >> (8 * (j % 2));
    const std::uint32_t low = (codes & 0x000F000FU) | 0x64006400U;
    const std::uint32_t high = (codes & 0x00F000F0U) | 0x54005400U;
    const float2 a = widen_pair(__hsub2(*reinterpret_cast<const __half2*>(&low), __float2half2_rn(1024.0F)));
    const float2 b = widen_pair(__hsub2(*reinterpret_cast<const __half2*>(&high), __float2half2_rn(64.0F)));
    return {a.x, a.y, b.x, b.y};
  }
};

/// What the template arguments decide.
template <WeightFormat kFormat, int kRows>
struct FusedShape {
  static constexpr bool kQuantized = kFormat == WeightFormat::kInt8 || kFormat == WeightFormat::kInt4;
  static constexpr int kElements = Decoder<kFormat>::kElements;
  static constexpr int kFours = kElements / 4;
  static constexpr int kPairs = kQuantized || kRows > 2 ? 2 : 1;
  static constexpr int kWeightRows = 2 * kPairs;
  static constexpr int kDepth = 8 / kWeightRows;  // steps in flight
  static constexpr int kResults = kRows * kWeightRows;
  static constexpr int kChunkColumns = kWarp * kElements;
  static constexpr int kChunkVectors = kChunkColumns / 4;               // float4 of a row of x
  static constexpr int kBlocks = kRows > (kQuantized ? 2 : 4) ? 1 : 2;  // on one multiprocessor
};

/// Shared memory of a block, in the order in which it lies there.
template <WeightFormat kFormat, int kRows>
struct FusedRoom {
  using Shape = FusedShape<kFormat, kRows>;
  float4* input;       // (kRows, tile chunks, kChunkVectors)
  float* sums;         // (kRows, tile chunks, 32): of each lane's columns; quantized weights only
  float* squares;      // (kRows, warps)
  float* moments;      // (kRows, 2): mean and 1 / standard deviation; layer norm only
  float* partials;     // (2, warps, kResults)
  CachePlace* places;  // (kRows): for kQkv
  int tile_chunks;

  __device__ FusedRoom(std::byte* base, const FusedLinear& args) : tile_chunks(args.tile_steps * args.splits) {
    input = reinterpret_cast<float4*>(base);
    sums = reinterpret_cast<float*>(input + kRows * tile_chunks * Shape::kChunkVectors);
    squares = sums + (Shape::kQuantized ? kRows * tile_chunks * kWarp : 0);
    moments = squares + kRows * kFusedWarps;
    partials = moments + kRows * 2;
    places = reinterpret_cast<CachePlace*>(partials + 2 * kFusedWarps * Shape::kResults);
  }
  static std::int64_t bytes(std::int64_t tile_chunks) {
    const std::int64_t sums = Shape::kQuantized ? kRows * tile_chunks * kWarp : 0;
    return 4 * (kRows * tile_chunks * Shape::kChunkColumns + sums + kRows * kFusedWarps + kRows * 2 +
                2LL * kFusedWarps * Shape::kResults) +
           kRows * static_cast<std::int64_t>(sizeof(CachePlace));
  }
};

__device__ __forceinline__ const float* input_row(const FusedLinear& args, int row) {
  const std::int64_t index = args.row_index == nullptr ? row : load_fresh(args.row_index + row);
  return args.x + index * args.cols;
}

/// One column of the input as the weights see it, and into `square` what it adds to the sum of squares.
__device__ __forceinline__ float input_element(const FusedLinear& args, const float* x, const float* moments, int col,
                                               float* square) {
  if (col >= args.cols) return 0;
  const int source = args.input_order == nullptr ? col : __ldg(args.input_order + col);
  const float value = load_fresh(x + source);
  *square = fmaf(value, value, *square);
  if (args.norm.gain == nullptr) return value;
  const float gain = __ldg(args.norm.gain + source);
  if (args.norm.kind == NormKind::kRms) return value * gain;
  const float normed = gain * ((value - moments[0]) * moments[1]);
  return args.norm.bias == nullptr ? normed : normed + __ldg(args.norm.bias + source);
}

/// Whether four columns may be loaded as one and need no more than a gain.
__device__ __forceinline__ bool input_is_plain(const FusedLinear& args) {
  return args.input_order == nullptr && args.cols % 4 == 0 &&
         (args.norm.gain == nullptr || args.norm.kind == NormKind::kRms);
}

/// Four columns from `col` on, a multiple of 4; of a plain input they are `v`, and their gains `gain`.
__device__ __forceinline__ float4 input_four(const FusedLinear& args, const float* x, const float* moments, int col,
                                             bool plain, float4 v, float4 gain, float* square) {
  if (!plain) {
    const float a = input_element(args, x, moments, col, square);
    const float b = input_element(args, x, moments, col + 1, square);
    const float c = input_element(args, x, moments, col + 2, square);
    return {a, b, c, input_element(args, x, moments, col + 3, square)};
  }
  if (col >= args.cols) return {0, 0, 0, 0};
  *square = fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, *square))));
  if (args.norm.gain != nullptr) {
    v = make_float4(v.x * gain.x, v.y * gain.y, v.z * gain.z, v.w * gain.w);
  }
  return v;
}

/// Layer norm's mean and 1 / standard deviation of each row, into shared memory; ends with a barrier.
template <WeightFormat kFormat, int kRows>
__device__ void find_moments(const FusedLinear& args, const FusedRoom<kFormat, kRows>& room) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int row = 0; row < args.rows; ++row) {
    const float* x = input_row(args, row);
    float sum = 0;
    for (int col = thread; col < args.cols; col += kFusedThreads) sum += load_fresh(x + col);
    const float mean = block_sum<kFusedThreads>(sum, room.partials) / static_cast<float>(args.cols);
    float squares = 0;
    for (int col = thread; col < args.cols; col += kFusedThreads) {
      const float distance = load_fresh(x + col) - mean;
      squares = fmaf(distance, distance, squares);
    }
    const float variance = block_sum<kFusedThreads>(squares, room.partials) / static_cast<float>(args.cols);
    if (thread == 0) {
      room.moments[2 * row] = mean;
      room.moments[2 * row + 1] = 1.0F / sqrtf(variance + args.norm.eps);
    }
  }
  __syncthreads();
}

/// A row of x, or of zeros where it is null, as far as it belongs to the tile that begins at chunk `first_chunk`. What
/// can be loaded as it is is asked for kAtOnce vectors at a time, with their gains.
template <int kAtOnce, bool kGain, WeightFormat kFormat, int kRows>
__device__ __forceinline__ void stage_row(const FusedLinear& args, const FusedRoom<kFormat, kRows>& room,
                                          int first_chunk, const float* x, int row, float* square) {
  using Shape = FusedShape<kFormat, kRows>;
  const int tile_vectors = room.tile_chunks * Shape::kChunkVectors;
  const bool plain = input_is_plain(args);
  for (int first = static_cast<int>(threadIdx.x); first < tile_vectors; first += kAtOnce * kFusedThreads) {
    float4 loaded[kAtOnce];
    float4 gains[kGain ? kAtOnce : 1];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int col = first_chunk * Shape::kChunkColumns + 4 * (first + k * kFusedThreads);
      const bool inside = x != nullptr && plain && col < args.cols;
      loaded[k] = inside ? load_fresh(reinterpret_cast<const float4*>(x + col)) : float4{0, 0, 0, 0};
      if constexpr (kGain) {
        gains[k] = inside ? __ldg(reinterpret_cast<const float4*>(args.norm.gain + col)) : float4{0, 0, 0, 0};
      }
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = first + k * kFusedThreads;
      if (i >= tile_vectors) break;
      const int chunk = i / Shape::kChunkVectors;
      const int lane = i % Shape::kChunkVectors / Shape::kFours;
      const int j = i % Shape::kFours;
      const int place = chunk * Shape::kChunkVectors + j * kWarp + (lane ^ (j * kWarp / Shape::kElements));
      float4 value = {0, 0, 0, 0};
      if (x != nullptr) {
        value = input_four(args, x, room.moments + 2 * row, first_chunk * Shape::kChunkColumns + 4 * i, plain,
                           loaded[k], gains[kGain ? k : 0], square);
      }
      room.input[row * tile_vectors + place] = value;
    }
  }
}

/// Brings the tile of x that begins at chunk `first_chunk` into shared memory, and adds to each thread's own sums of
/// squares. The last tile publishes those. Barriers before and behind.
template <WeightFormat kFormat, int kRows>
__device__ void stage_input(const FusedLinear& args, const FusedRoom<kFormat, kRows>& room, int first_chunk,
                            float (&square)[kRows], bool publish) {
  using Shape = FusedShape<kFormat, kRows>;
  constexpr int kAtOnce = kRows == 1 ? 8 : 4;
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const float* x = row < args.rows ? input_row(args, row) : nullptr;
    if (args.norm.gain == nullptr) {
      stage_row<kAtOnce, false>(args, room, first_chunk, x, row, &square[row]);
    } else {
      stage_row<kAtOnce / 2, true>(args, room, first_chunk, x, row, &square[row]);
    }
    if (publish) {
      const float sum = warp_sum(square[row]);
      if (thread % kWarp == 0) room.squares[row * kFusedWarps + thread / kWarp] = sum;
    }
  }
  __syncthreads();
  if constexpr (Shape::kQuantized) {
    for (int i = thread; i < kRows * room.tile_chunks * kWarp; i += kFusedThreads) {
      const float4* chunk = room.input + i / kWarp * Shape::kChunkVectors;
      const int lane = i % kWarp;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < Shape::kFours; ++j) {
        const float4 v = chunk[j * kWarp + (lane ^ (j * kWarp / Shape::kElements))];
        sum += (v.x + v.y) + (v.z + v.w);
      }
      room.sums[i] = sum;
    }
    __syncthreads();
  }
}

}  // namespace lanner::ops::cuda
