// The epilogues of large products: bias, then norm and rotation of heads and the writing of the cache, in codes, too;
// scale, norm and residual; the gate; the logits' scale and cap.
//
// Bound: the product's fp32 bytes, read once, and what is written. A warp takes a head, so that a head's norm needs no
// barrier; a block takes a row where the norm is over the whole row; elsewhere a block takes 1024 columns of a row,
// each thread four of them: neighbours of a gate that allows it, else 256 apart.

#include "ops/cuda/device.cuh"
#include "ops/cuda/finish.h"
#include "ops/cuda/heads.cuh"
#include "ops/cuda/kv_codes.cuh"

namespace lanner::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlockColumns = 4 * kThreads;
constexpr int kMostHeadElements = 16;  // of a lane: heads of up to 512

__device__ __forceinline__ float biased(const Product& product, std::int64_t row, int part, std::int64_t column) {
  const float value = load_fresh(product.values + row * product.stride + product.first_column[part] + column);
  return product.bias[part] == nullptr ? value : value + __ldg(product.bias[part] + column);
}

__device__ __forceinline__ int part_of(const Product& product, std::int64_t column) {
  int part = 0;
  while (part + 1 < product.part_count && column >= product.first_column[part + 1]) ++part;
  return part;
}

__device__ __forceinline__ float biased_at(const Product& product, std::int64_t row, std::int64_t column) {
  const int part = part_of(product, column);
  return biased(product, row, part, column - product.first_column[part]);
}

/// Norm over the elements of a head that the lanes of a warp hold, lane L elements L, L + 32, ...
__device__ void norm_head_elements(const DeviceNorm& norm, float (&value)[kMostHeadElements], int head_dim, int lane) {
  float mean = 0;
  if (norm.kind == NormKind::kLayer) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kMostHeadElements; ++i) sum += lane + i * kWarp < head_dim ? value[i] : 0.0F;
    mean = warp_sum(sum) / static_cast<float>(head_dim);
  }
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kMostHeadElements; ++i) {
    const float distance = lane + i * kWarp < head_dim ? value[i] - mean : 0.0F;
    squares = fmaf(distance, distance, squares);
  }
  const float scale = 1.0F / sqrtf(warp_sum(squares) / static_cast<float>(head_dim) + norm.eps);
#pragma unroll
  for (int i = 0; i < kMostHeadElements; ++i) {
    const int element = lane + i * kWarp;
    if (element >= head_dim) continue;
    value[i] = __ldg(norm.gain + element) * ((value[i] - mean) * scale);
    if (norm.bias != nullptr) value[i] += __ldg(norm.bias + element);
  }
}

struct QkvFinish {
  Product product;
  DeviceNorm q_norm;
  DeviceNorm k_norm;
  HeadsOut heads;
  std::int64_t rows;
  std::int64_t first_row;
};

/// Turns a key or value, (head_dim) in the warp's shared memory, where it is, and writes it in codes.
__device__ __forceinline__ void write_head_codes(const HeadsOut& heads, const CachePlace& place, std::int64_t row,
                                                 int part, int head, float* own, int lane) {
  if (place.block == nullptr) return;
  for (int i = lane; part == 1 && i < heads.rotary_dim / 2; i += kWarp) {
    const int2 pair = head_pair(heads, i);
    const float2 turn = load_turn(heads, row, part, pair.x);
    const float2 turned = turned_pair(own[pair.x], own[pair.y], turn);
    own[pair.x] = turned.x;
    own[pair.y] = turned.y;
  }
  __syncwarp();
  store_codes(heads.codes, place.block + head * heads.head_bytes, part,
              static_cast<int>(place.first_element / heads.head_dim), heads.head_dim, own);
}

/// A warp takes one head of one row, brings it through the norm into shared memory and writes it in pairs, or, of a
/// cache in codes, whole.
__global__ void __launch_bounds__(kThreads) write_heads(const __grid_constant__ QkvFinish args) {
  extern __shared__ float room[];  // (warps, head_dim)
  wait_for_previous();
  let_next_start();
  const HeadsOut& heads = args.heads;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int heads_of_row = heads.heads + 2 * heads.kv_heads;
  const std::int64_t task = static_cast<std::int64_t>(blockIdx.x) * (kThreads / kWarp) + warp;
  if (task >= args.rows * heads_of_row) return;
  const std::int64_t row = task / heads_of_row;
  int head = static_cast<int>(task % heads_of_row);
  int part = 0;
  if (head >= heads.heads) {
    head -= heads.heads;
    part = 1 + head / heads.kv_heads;
    head %= heads.kv_heads;
  }
  float value[kMostHeadElements];
#pragma unroll
  for (int i = 0; i < kMostHeadElements; ++i) {
    const int element = lane + i * kWarp;
    value[i] = element < heads.head_dim ? biased(args.product, row, part, head * heads.head_dim + element) : 0.0F;
  }
  const DeviceNorm& norm = part == 0 ? args.q_norm : args.k_norm;
  if (part < 2 && norm.gain != nullptr) norm_head_elements(norm, value, heads.head_dim, lane);
  float* own = room + warp * heads.head_dim;
#pragma unroll
  for (int i = 0; i < kMostHeadElements; ++i) {
    if (lane + i * kWarp < heads.head_dim) own[lane + i * kWarp] = value[i];
  }
  __syncwarp();
  const CachePlace place = find_cache_place(heads, args.first_row + row);
  if (part > 0 && heads.codes != KvCodes::kNone) {
    write_head_codes(heads, place, args.first_row + row, part, head, own, lane);
    return;
  }
  for (int i = lane; i < heads.head_dim / 2; i += kWarp) {
    const int2 pair = head_pair(heads, i);
    write_head_pair(heads, place, args.first_row + row, part, head, pair.x, pair.y, own[pair.x], own[pair.y],
                    load_turn(heads, args.first_row + row, part, pair.x));
  }
}

__device__ __forceinline__ float4 plus_bias(float4 v, const float* bias, std::int64_t column) {
  if (bias == nullptr) return v;
  return make_float4(v.x + __ldg(bias + column), v.y + __ldg(bias + column + 1), v.z + __ldg(bias + column + 2),
                     v.w + __ldg(bias + column + 3));
}

/// Four numbers at a multiple of four.
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

/// Four elements of the cache, which keeps an infinity where a number is too large for its type.
__device__ __forceinline__ void store_four_cached(DType dtype, std::byte* place, float4 v) {
  if (dtype == DType::kF32) {
    *reinterpret_cast<float4*>(place) = v;
    return;
  }
  alignas(8) std::byte four[8];
  store_cached(dtype, four, 0, v.x);
  store_cached(dtype, four, 1, v.y);
  store_cached(dtype, four, 2, v.z);
  store_cached(dtype, four, 3, v.w);
  *reinterpret_cast<uint2*>(place) = *reinterpret_cast<const uint2*>(four);
}

/// x * cosine - y * sine, element by element.
__device__ __forceinline__ float4 turned(float4 x, float4 y, float4 cosine, float4 sine) {
  return make_float4(x.x * cosine.x - y.x * sine.x, x.y * cosine.y - y.y * sine.y, x.z * cosine.z - y.z * sine.z,
                     x.w * cosine.w - y.w * sine.w);
}

/// Heads without a norm that turn whole or not at all: see writes_vectors(). A block takes 2048 columns of a row, each
/// thread four elements and their partners half a head behind.
template <bool kCoded>
__global__ void __launch_bounds__(kThreads) write_head_vectors(const __grid_constant__ QkvFinish args) {
  const HeadsOut& heads = args.heads;
  const std::int64_t row = blockIdx.x;
  const CachePlace place = find_cache_place(heads, args.first_row + row);
  const int half = heads.head_dim / 2;
  const int quad = (static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x)) * 4;
  int head = quad / half;
  const int element = quad % half;
  wait_for_previous();
  let_next_start();
  if (head >= heads.heads + 2 * heads.kv_heads) return;
  const float* from = args.product.values + row * args.product.stride + head * heads.head_dim + element;
  float4 x = load_fresh(reinterpret_cast<const float4*>(from));
  float4 y = load_fresh(reinterpret_cast<const float4*>(from + half));
  int part = 0;
  if (head >= heads.heads) {
    head -= heads.heads;
    part = head < heads.kv_heads ? 1 : 2;
    if (part == 2) head -= heads.kv_heads;
  }
  const int column = head * heads.head_dim + element;
  x = plus_bias(x, args.product.bias[part], column);
  y = plus_bias(y, args.product.bias[part], column + half);
  if (part < 2 && heads.rotary_dim != 0) {
    const float* angles = heads.angles + (args.first_row + row) * heads.rotary_dim + element;
    const float4 cosine = load_fresh(reinterpret_cast<const float4*>(angles));
    const float4 sine = load_fresh(reinterpret_cast<const float4*>(angles + half));
    const float4 first = turned(x, y, cosine, sine);
    y = turned(y, make_float4(-x.x, -x.y, -x.z, -x.w), cosine, sine);
    x = first;
  }
  if (part == 0) {
    float* q = heads.q + ((args.first_row + row) * heads.heads + head) * heads.head_dim + element;
    *reinterpret_cast<float4*>(q) = x;
    *reinterpret_cast<float4*>(q + half) = y;
    return;
  }
  if (place.block == nullptr) return;
  if constexpr (kCoded) {
    store_quad_codes(heads.codes, place.block + head * heads.head_bytes, part,
                     static_cast<int>(place.first_element / heads.head_dim), heads.head_dim, element, x, y);
    return;
  }
  const std::int64_t size = heads.dtype == DType::kF32 ? 4 : 2;
  const std::int64_t at = place.first_element + (part == 2 ? kKvBlockTokens * heads.head_dim : 0) + element;
  std::byte* cached = place.block + head * heads.head_bytes + at * size;
  store_four_cached(heads.dtype, cached, x);
  store_four_cached(heads.dtype, cached + half * size, y);
}

/// visit(row, column) for this thread's columns of a row of `width`.
template <typename Visit>
__device__ __forceinline__ void for_own_columns(std::int64_t width, const Visit& visit) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kBlockColumns + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kBlockColumns / kThreads; ++i) {
    const std::int64_t column = first + i * kThreads;
    if (column < width) visit(static_cast<std::int64_t>(blockIdx.x), column);
  }
}

/// Without a post-norm every element stands for itself.
__global__ void __launch_bounds__(kThreads)
    add_elements(const __grid_constant__ Product product, float scale, float* x) {
  wait_for_previous();
  let_next_start();
  for_own_columns(product.width, [&](std::int64_t row, std::int64_t column) {
    float* place = x + row * product.width + column;
    *place = load_fresh(place) + scale * biased_at(product, row, column);
  });
}

/// A block takes a row: its norm reads the product twice.
__global__ void __launch_bounds__(kThreads) add_normed(const __grid_constant__ Product product, float scale,
                                                       const __grid_constant__ DeviceNorm norm, float* x) {
  __shared__ float room[kThreads / kWarp];
  wait_for_previous();
  let_next_start();
  const std::int64_t row = blockIdx.x;
  const auto width = static_cast<float>(product.width);
  float mean = 0;
  if (norm.kind == NormKind::kLayer) {
    float sum = 0;
    for (std::int64_t col = threadIdx.x; col < product.width; col += kThreads) {
      sum += scale * biased_at(product, row, col);
    }
    mean = block_sum<kThreads>(sum, room) / width;
  }
  float squares = 0;
  for (std::int64_t col = threadIdx.x; col < product.width; col += kThreads) {
    const float distance = scale * biased_at(product, row, col) - mean;
    squares = fmaf(distance, distance, squares);
  }
  const float factor = 1.0F / sqrtf(block_sum<kThreads>(squares, room) / width + norm.eps);
  for (std::int64_t col = threadIdx.x; col < product.width; col += kThreads) {
    float value = __ldg(norm.gain + col) * ((scale * biased_at(product, row, col) - mean) * factor);
    if (norm.bias != nullptr) value += __ldg(norm.bias + col);
    float* place = x + row * product.width + col;
    *place = load_fresh(place) + value;
  }
}

__global__ void __launch_bounds__(kThreads)
    gate_elements(const __grid_constant__ Product product, Gate gate, float* h, WeightFormat h_format) {
  wait_for_previous();
  let_next_start();
  const std::int64_t width = product.first_column[1];
  if (product.part_count == 2 && width % 4 == 0 && product.stride % 4 == 0) {
    const std::int64_t row = blockIdx.x;
    const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * kBlockColumns + 4LL * threadIdx.x;
    if (column >= width) return;
    const float* place = product.values + row * product.stride + column;
    float4 a = load_fresh(reinterpret_cast<const float4*>(place));
    float4 b = load_fresh(reinterpret_cast<const float4*>(place + width));
    a = plus_bias(a, product.bias[0], column);
    b = plus_bias(b, product.bias[1], column);
    store_operands(
        h_format, h, row * width + column,
        make_float4(gated(gate, a.x) * b.x, gated(gate, a.y) * b.y, gated(gate, a.z) * b.z, gated(gate, a.w) * b.w));
    return;
  }
  for_own_columns(width, [&](std::int64_t row, std::int64_t column) {
    const float value = gated(gate, biased(product, row, 0, column));
    store_operand(h_format, h, row * width + column,
                  product.part_count == 1 ? value : value * biased(product, row, 1, column));
  });
}

__global__ void __launch_bounds__(kThreads)
    scale_logits(const __grid_constant__ Product product, float scale, float soft_cap, float* logits) {
  wait_for_previous();
  let_next_start();
  for_own_columns(product.width, [&](std::int64_t row, std::int64_t column) {
    logits[row * product.width + column] = capped(scale * biased_at(product, row, column), soft_cap);
  });
}

dim3 grid_for(std::int64_t rows, std::int64_t width) {
  return dim3(static_cast<unsigned>(rows), static_cast<unsigned>(ceil_div(width, kBlockColumns)));
}

/// Whether write_head_vectors() can write these heads.
bool writes_vectors(const QkvFinish& args) {
  const HeadsOut& heads = args.heads;
  if (heads.codes != KvCodes::kNone && !quads_are_in_warp(heads.head_dim)) return false;
  return args.q_norm.gain == nullptr && args.k_norm.gain == nullptr && heads.head_dim % 8 == 0 &&
         (heads.rotary_dim == 0 || heads.rotary_dim == heads.head_dim) && args.product.stride % 4 == 0;
}

}  // namespace

cudaError_t finish_qkv(const KernelContext& context, const Product& product, std::int64_t rows, std::int64_t first_row,
                       const DeviceNorm& q_norm, const DeviceNorm& k_norm, const HeadsOut& heads) {
  if (heads.head_dim > kMostHeadElements * kWarp) return cudaErrorInvalidValue;
  const QkvFinish args = {
      .product = product, .q_norm = q_norm, .k_norm = k_norm, .heads = heads, .rows = rows, .first_row = first_row};
  if (writes_vectors(args)) {
    const std::int64_t quads = args.product.width / 8;
    const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(ceil_div(quads, kThreads)));
    const auto write = heads.codes == KvCodes::kNone ? write_head_vectors<false> : write_head_vectors<true>;
    return launch(context, write, grid, kThreads, 0, args);
  }
  const std::int64_t warps = rows * (heads.heads + 2 * heads.kv_heads);
  return launch(context, write_heads, dim3(static_cast<unsigned>(ceil_div(warps * kWarp, kThreads))), kThreads,
                static_cast<std::size_t>(kThreads / kWarp * heads.head_dim) * sizeof(float), args);
}

cudaError_t finish_add(const KernelContext& context, const Product& product, std::int64_t rows, float scale,
                       const DeviceNorm& post_norm, float* x) {
  if (post_norm.gain != nullptr) {
    return launch(context, add_normed, dim3(static_cast<unsigned>(rows)), kThreads, 0, product, scale, post_norm, x);
  }
  return launch(context, add_elements, grid_for(rows, product.width), kThreads, 0, product, scale, x);
}

cudaError_t finish_gate(const KernelContext& context, const Product& product, std::int64_t rows, Gate gate, float* h,
                        WeightFormat h_format) {
  return launch(context, gate_elements, grid_for(rows, product.first_column[1]), kThreads, 0, product, gate, h,
                h_format);
}

cudaError_t finish_head(const KernelContext& context, const Product& product, std::int64_t rows, float scale,
                        float soft_cap, float* logits) {
  return launch(context, scale_logits, grid_for(rows, product.width), kThreads, 0, product, scale, soft_cap, logits);
}

}  // namespace lanner::ops::cuda
