#pragma once
// Keys and values in codes of 8 or 4 bits (ops/kv_cache.h): where they lie in a block, and how they become numbers.
//
// A row is one token's key or value of a head: rows 0 to 63 of a block are its keys, 64 to 127 its values. Codes of 8
// bits lie in the order of the elements. Of 4 bits eight lie in each 32-bit word, in the order of int4_nibble(). Each
// row's scale and min, a pair of fp16, lie behind all codes, in the order of the rows.

#include <type_traits>

#include "ops/cuda/device.cuh"

namespace lanner::ops::cuda {

inline constexpr int kKvRows = 2 * static_cast<int>(kKvBlockTokens);                // of a block, of one head
inline constexpr int kKvPairBytes = kKvRows * static_cast<int>(kKvParameterBytes);  // of their scales and mins

template <KvCodes kCodes>
inline constexpr int kCodeBits = kCodes == KvCodes::kInt8 ? 8 : 4;

/// What `count` codes take, a multiple of 8.
__device__ constexpr int code_bytes(KvCodes codes, int count) { return codes == KvCodes::kInt8 ? count : count / 2; }

/// kCount codes as they lie in memory, at a multiple of kCount codes.
template <KvCodes kCodes, int kCount>
struct CodeWords {
  static constexpr int kWords = kCount * kCodeBits<kCodes> / 32;
  static_assert(kWords == 1 || kWords == 2 || kWords == 4);
  std::uint32_t word[kWords];

  /// From shared memory.
  __device__ __forceinline__ void read(const std::byte* place) {
    if constexpr (kWords == 4) {
      set(*reinterpret_cast<const uint4*>(place));
    } else if constexpr (kWords == 2) {
      set(*reinterpret_cast<const uint2*>(place));
    } else {
      word[0] = *reinterpret_cast<const std::uint32_t*>(place);
    }
  }
  /// From the device's memory.
  __device__ __forceinline__ void load(const std::byte* place) {
    if constexpr (kWords == 4) {
      set(load_fresh(reinterpret_cast<const uint4*>(place)));
    } else if constexpr (kWords == 2) {
      set(load_fresh(reinterpret_cast<const uint2*>(place)));
    } else {
      word[0] = load_fresh(reinterpret_cast<const std::uint32_t*>(place));
    }
  }

  /// Codes 2 * i and the next as a pair of fp16, which holds them exactly.
  __device__ __forceinline__ std::uint32_t pair(int i) const {
    if constexpr (kCodes == KvCodes::kInt8) {
      return counted(__byte_perm(word[i / 2], kThousands, i % 2 == 0 ? 0x4140 : 0x4342));
    } else {
      return counted((word[i / 4] >> 4 * (i % 4) & 0x000F000FU) | kPairThousands);
    }
  }

  /// Code i here and there.
  __device__ __forceinline__ std::uint32_t pair_with(const CodeWords& there, int i) const {
    if constexpr (kCodes == KvCodes::kInt8) {
      const std::uint32_t both = __byte_perm(word[i / 4], there.word[i / 4], i % 4 < 2 ? 0x5140 : 0x7362);
      return counted(__byte_perm(both, kThousands, i % 2 == 0 ? 0x4140 : 0x4342));
    } else {
      const std::uint32_t both = __byte_perm(word[i / 8], there.word[i / 8], i % 2 == 0 ? 0x5410 : 0x7632);
      return counted((both >> 4 * (i % 8 / 2) & 0x000F000FU) | kPairThousands);
    }
  }

 private:
  // The upper byte of 1024 in fp16, whose last place is 1: with a code below it stands for 1024 + code.
  static constexpr std::uint32_t kThousands = 0x64646464U;
  static constexpr std::uint32_t kPairThousands = 0x64006400U;

  static __device__ __forceinline__ std::uint32_t counted(std::uint32_t thousands_more) {
    const __half2 thousand = __float2half2_rn(1024.0F);
    const __half2 counts = __hsub2(*reinterpret_cast<const __half2*>(&thousands_more), thousand);
    return *reinterpret_cast<const std::uint32_t*>(&counts);
  }
  __device__ __forceinline__ void set(uint4 v) { word[0] = v.x, word[1] = v.y, word[2] = v.z, word[3] = v.w; }
  __device__ __forceinline__ void set(uint2 v) { word[0] = v.x, word[1] = v.y; }
};

/// Two numbers of a token, rounded to T, of a pair of codes in fp16.
template <typename T>
__device__ __forceinline__ std::uint32_t number_pair(std::uint32_t codes, std::uint32_t scale_and_min) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = *reinterpret_cast<const __half2*>(&scale_and_min);
    const __half2 numbers = __hfma2(*reinterpret_cast<const __half2*>(&codes), __low2half2(pair), __high2half2(pair));
    return *reinterpret_cast<const std::uint32_t*>(&numbers);
  } else {
    const float2 counts = widen_word<__half>(codes);
    const float2 pair = widen_word<__half>(scale_and_min);
    return rounded_word<T>(fmaf(counts.x, pair.x, pair.y), fmaf(counts.y, pair.x, pair.y));
  }
}

/// Scale and min of a row, as they lie there.
__device__ __forceinline__ const std::uint32_t* code_pair_place(const std::byte* head, int row, int row_bytes) {
  return reinterpret_cast<const std::uint32_t*>(head + static_cast<std::int64_t>(kKvRows) * row_bytes) + row;
}

/// Where a token's key (part 1) or value (part 2) lies among the rows of a head.
__device__ __forceinline__ int code_row(int part, int slot) {
  return part == 2 ? slot + static_cast<int>(kKvBlockTokens) : slot;
}

/// How the numbers of a row are counted.
struct CodeSteps {
  std::uint32_t pair;  // scale and min, as they are kept
  float levels;

  __device__ __forceinline__ CodeSteps(KvCodes codes, float smallest, float largest, bool finite)
      : levels(codes == KvCodes::kInt8 ? 255.0F : 15.0F) {
    const float step = finite ? __fdiv_rn(__fsub_rn(largest, smallest), levels) : NAN;
    const __half2 kept = __floats2half2_rn(step, smallest);
    pair = *reinterpret_cast<const std::uint32_t*>(&kept);
  }
  __device__ __forceinline__ std::uint32_t code(float x) const {
    const float2 kept = widen_word<__half>(pair);
    const float count = kept.x > 0 ? rintf(__fdiv_rn(__fsub_rn(x, kept.y), kept.x)) : 0.0F;
    return static_cast<std::uint32_t>(fminf(fmaxf(count, 0.0F), levels));
  }
};

/// Writes a key (part 1) or value (part 2) of one token in codes. A warp does it together; x (head_dim), a multiple of
/// 8, is the warp's own shared memory.
__device__ __forceinline__ void store_codes(KvCodes codes, std::byte* head, int part, int slot, int head_dim,
                                            const float* x) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float smallest = INFINITY;
  float largest = -INFINITY;
  bool finite = true;
  for (int i = lane; i < head_dim; i += kWarp) {
    smallest = fminf(smallest, x[i]);
    largest = fmaxf(largest, x[i]);
    finite = finite && fabsf(x[i]) < INFINITY;
  }
  smallest = -warp_max(-smallest);
  largest = warp_max(largest);
  const CodeSteps steps(codes, smallest, largest, __all_sync(kAllLanes, finite));
  const int row = code_row(part, slot);
  const int row_bytes = code_bytes(codes, head_dim);
  std::byte* place = head + row * row_bytes;
  for (int i = lane; i < head_dim / 8; i += kWarp) {
    std::uint32_t code[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) code[j] = steps.code(x[i * 8 + j]);
    if (codes == KvCodes::kInt8) {
      *reinterpret_cast<uint2*>(place + i * 8) = make_uint2(code[0] | code[1] << 8 | code[2] << 16 | code[3] << 24,
                                                            code[4] | code[5] << 8 | code[6] << 16 | code[7] << 24);
    } else {
      std::uint32_t word = 0;
#pragma unroll
      for (int j = 0; j < 8; ++j) word |= code[j] << 4 * nibble_place(j);
      *reinterpret_cast<std::uint32_t*>(place + i * 4) = word;
    }
  }
  if (lane == 0) *const_cast<std::uint32_t*>(code_pair_place(head, row, row_bytes)) = steps.pair;
}

/// Four codes of elements from a multiple of four on: of 8 bits their word, of 4 bits what they are of it.
__device__ __forceinline__ std::uint32_t four_codes(KvCodes codes, const CodeSteps& steps, int element, float4 v) {
  const std::uint32_t code[4] = {steps.code(v.x), steps.code(v.y), steps.code(v.z), steps.code(v.w)};
  if (codes == KvCodes::kInt8) return code[0] | code[1] << 8 | code[2] << 16 | code[3] << 24;
  const std::uint32_t first = code[0] | code[1] << 16 | code[2] << 4 | code[3] << 20;  // as nibble_place() has it
  return element % 8 == 0 ? first : first << 8;
}

__device__ __forceinline__ float smallest_of(float4 v) { return fminf(fminf(v.x, v.y), fminf(v.z, v.w)); }
__device__ __forceinline__ float largest_of(float4 v) { return fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)); }
__device__ __forceinline__ bool all_finite(float4 v) {
  return fabsf(v.x) < INFINITY && fabsf(v.y) < INFINITY && fabsf(v.z) < INFINITY && fabsf(v.w) < INFINITY;
}

/// Whether store_quad_codes() can write heads of that size: neighbouring lanes of one warp hold one.
constexpr bool quads_are_in_warp(std::int64_t head_dim) { return head_dim == 64 || head_dim == 128 || head_dim == 256; }

/// What store_codes() writes, of numbers that head_dim / 8 neighbouring lanes hold, from a multiple of that on: x four
/// of the first half, from `element` on, y their partners half a head behind; the next lane the next ones. They do it
/// together.
__device__ __forceinline__ void store_quad_codes(KvCodes codes, std::byte* head, int part, int slot, int head_dim,
                                                 int element, float4 x, float4 y) {
  const int lanes = head_dim / 8;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const unsigned own_lanes = kAllLanes >> (kWarp - lanes) << (lane / lanes * lanes);
  float smallest = fminf(smallest_of(x), smallest_of(y));
  float largest = all_finite(x) && all_finite(y) ? fmaxf(largest_of(x), largest_of(y)) : INFINITY;
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    smallest = fminf(smallest, __shfl_xor_sync(own_lanes, smallest, offset));
    largest = fmaxf(largest, __shfl_xor_sync(own_lanes, largest, offset));
  }
  const CodeSteps steps(codes, smallest, largest, largest < INFINITY);
  const int row = code_row(part, slot);
  const int row_bytes = code_bytes(codes, head_dim);
  std::byte* place = head + row * row_bytes;
  std::uint32_t first = four_codes(codes, steps, element, x);
  std::uint32_t second = four_codes(codes, steps, element, y);
  if (codes == KvCodes::kInt8) {
    *reinterpret_cast<std::uint32_t*>(place + element) = first;
    *reinterpret_cast<std::uint32_t*>(place + element + head_dim / 2) = second;
  } else {  // two lanes have a word of each half: one writes the first, the other the second
    first |= __shfl_xor_sync(own_lanes, first, 1);
    second |= __shfl_xor_sync(own_lanes, second, 1);
    const bool is_first = element % 8 == 0;
    const int of_word = is_first ? element : element - 4 + head_dim / 2;
    *reinterpret_cast<std::uint32_t*>(place + of_word / 2) = is_first ? first : second;
  }
  if (element == 0) *const_cast<std::uint32_t*>(code_pair_place(head, row, row_bytes)) = steps.pair;
}

}  // namespace lanner::ops::cuda
