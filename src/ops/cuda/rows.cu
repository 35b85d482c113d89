// Operations on whole rows of activations: norms (also as the first half of a large product), embeddings, rotary
// angles, and the reading of the cache for tests.
//
// Bound: the bytes read and written, all small beside the weights; one block a row (of an embedding one for 1024
// columns), neighbouring threads on neighbouring columns. A row of up to 8192 columns is kept in registers, so that a
// norm reads it once.

#include "ops/cuda/device.cuh"
#include "ops/cuda/kv_codes.cuh"
#include "ops/cuda/rows.h"

namespace lanner::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kEmbedEach = 4;  // columns of an embedding that a thread takes
constexpr int kEmbedCols = kEmbedEach * kThreads;

/// mean (0 for RMS norm) and 1 / root mean square distance from it.
__device__ float2 row_moments(const DeviceNorm& norm, const float* x, std::int64_t cols, float* room) {
  float mean = 0;
  if (norm.kind == NormKind::kLayer) {
    float sum = 0;
    for (std::int64_t col = threadIdx.x; col < cols; col += kThreads) sum += load_fresh(x + col);
    mean = block_sum<kThreads>(sum, room) / static_cast<float>(cols);
  }
  float squares = 0;
  for (std::int64_t col = threadIdx.x; col < cols; col += kThreads) {
    const float distance = load_fresh(x + col) - mean;
    squares = fmaf(distance, distance, squares);
  }
  const float variance = block_sum<kThreads>(squares, room) / static_cast<float>(cols);
  return {mean, 1.0F / sqrtf(variance + norm.eps)};
}

template <typename T>
__global__ void __launch_bounds__(kThreads) prepare(const __grid_constant__ PrepareRows args) {
  __shared__ float room[kThreads / kWarp];
  wait_for_previous();
  let_next_start();
  const std::int64_t row = blockIdx.x;
  const std::int64_t source = args.row_index == nullptr ? row : load_fresh(args.row_index + row);
  const float* x = args.x + source * args.cols;
  T* out = static_cast<T*>(args.out) + row * args.stride;
  const DeviceNorm& norm = args.norm;
  float2 moments = {0, 1};
  if (norm.gain != nullptr) moments = row_moments(norm, x, args.cols, room);
  for (std::int64_t col = threadIdx.x; col < args.stride; col += kThreads) {
    float value = 0;
    if (col < args.cols) {
      const std::int64_t from = args.input_order == nullptr ? col : __ldg(args.input_order + col);
      value = load_fresh(x + from);
      if (norm.gain != nullptr) {
        value = __ldg(norm.gain + from) * ((value - moments.x) * moments.y);
        if (norm.bias != nullptr) value += __ldg(norm.bias + from);
      }
    }
    out[col] = narrow_operand<T>(value);
  }
}

template <typename T>
__device__ __forceinline__ void store_four(T* place, float4 v) {
  *reinterpret_cast<uint2*>(place) = make_uint2(operand_word<T>(v.x, v.y), operand_word<T>(v.z, v.w));
}
template <>
__device__ __forceinline__ void store_four<float>(float* place, float4 v) {
  *reinterpret_cast<float4*>(place) = v;
}

__device__ __forceinline__ float sum_of(float4 v) { return (v.x + v.y) + (v.z + v.w); }

/// The same without an order of the columns, which are a multiple of 4 and at most 4 * kFours * kThreads.
template <typename T, int kFours>
__global__ void __launch_bounds__(kThreads) prepare_once(const __grid_constant__ PrepareRows args) {
  __shared__ float room[kThreads / kWarp];
  const DeviceNorm& norm = args.norm;
  const auto cols = static_cast<int>(args.cols);
  const auto stride = static_cast<int>(args.stride);
  float4 gain[kFours];
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int col = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (norm.gain != nullptr && col < cols) gain[i] = __ldg(reinterpret_cast<const float4*>(norm.gain + col));
  }
  wait_for_previous();
  let_next_start();
  const std::int64_t row = blockIdx.x;
  const std::int64_t source = args.row_index == nullptr ? row : load_fresh(args.row_index + row);
  const float* x = args.x + source * args.cols;
  float4 value[kFours];
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int col = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    value[i] = col < cols ? load_fresh(reinterpret_cast<const float4*>(x + col)) : make_float4(0, 0, 0, 0);
  }
  if (norm.gain != nullptr) {
    float mean = 0;
    if (norm.kind == NormKind::kLayer) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kFours; ++i) sum += sum_of(value[i]);
      mean = block_sum<kThreads>(sum, room) / static_cast<float>(cols);
    }
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int col = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
      if (col >= cols) continue;
      value[i] = make_float4(value[i].x - mean, value[i].y - mean, value[i].z - mean, value[i].w - mean);
      const float4 v = value[i];
      squares += sum_of(make_float4(v.x * v.x, v.y * v.y, v.z * v.z, v.w * v.w));
    }
    const float factor = 1.0F / sqrtf(block_sum<kThreads>(squares, room) / static_cast<float>(cols) + norm.eps);
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int col = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
      if (col >= cols) continue;
      float4& v = value[i];
      v = make_float4(gain[i].x * (v.x * factor), gain[i].y * (v.y * factor), gain[i].z * (v.z * factor),
                      gain[i].w * (v.w * factor));
      if (norm.bias == nullptr) continue;
      const float4 bias = __ldg(reinterpret_cast<const float4*>(norm.bias + col));
      v = make_float4(v.x + bias.x, v.y + bias.y, v.z + bias.z, v.w + bias.w);
    }
  }
  T* out = static_cast<T*>(args.out) + row * args.stride;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int col = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (col < stride) store_four(out + col, value[i]);
  }
}

/// One element of a weight in any format.
__device__ float weight_element(const DeviceWeight& weight, std::int64_t row, std::int64_t col) {
  const auto* bytes = static_cast<const std::uint8_t*>(weight.data) + row * weight.stride;
  switch (weight.format) {
    case WeightFormat::kF32: return __ldg(reinterpret_cast<const float*>(bytes) + col);
    case WeightFormat::kF16: return widen(__ldg(reinterpret_cast<const __half*>(bytes) + col));
    case WeightFormat::kBF16: return widen(__ldg(reinterpret_cast<const __nv_bfloat16*>(bytes) + col));
    default: break;
  }
  float code = 0;
  if (weight.format == WeightFormat::kInt8) {
    code = static_cast<float>(__ldg(bytes + col)) - 128.0F;
  } else {
    const std::uint32_t word = __ldg(int4_word(weight, row, col));
    code = static_cast<float>(word >> (4 * nibble_place(static_cast<int>(col % 8))) & 15U);
  }
  const std::int64_t index = pair_index(weight, row, col);
  const float2 pair = scale_and_offset(weight.scale_format, load_scale(weight.scale_format, weight.scales, index));
  return __fadd_rn(__fmul_rn(pair.x, code), pair.y);  // two roundings: an embedding has the same bits on every device
}

__global__ void __launch_bounds__(kThreads)
    embed_rows(const __grid_constant__ DeviceWeight table, const std::int32_t* tokens, const std::int32_t* sampled,
               float scale, float* x) {
  wait_for_previous();
  let_next_start();
  const std::int64_t row = blockIdx.x;
  std::int32_t token = load_fresh(tokens + row);
  if (token < 0) token = load_fresh(sampled + (-1 - token));  // see sampled_token()
  const std::int64_t first = blockIdx.y * kEmbedCols + threadIdx.x;
  float values[kEmbedEach];
#pragma unroll
  for (int i = 0; i < kEmbedEach; ++i) {
    const std::int64_t col = first + i * kThreads;
    values[i] = col < table.cols ? weight_element(table, token, col) : 0.0F;
  }
#pragma unroll
  for (int i = 0; i < kEmbedEach; ++i) {
    const std::int64_t col = first + i * kThreads;
    if (col < table.cols) x[row * table.cols + col] = scale * values[i];
  }
}

__global__ void __launch_bounds__(kThreads)
    find_angles(const float* inverse_frequencies, std::int64_t half, float scale, const std::int32_t* positions,
                std::int64_t rows, float* angles) {
  let_next_start();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t row = min(i / half, rows - 1);
  const std::int64_t element = i % half;
  // The batch is there before a step's first kernel; who reads the angles of the step before may still be at it.
  const float angle = static_cast<float>(load_fresh(positions + row)) * __ldg(inverse_frequencies + element);
  float sine = 0;
  float cosine = 0;
  sincosf(angle, &sine, &cosine);
  wait_for_previous();
  if (i >= rows * half) return;
  angles[row * 2 * half + element] = cosine * scale;
  angles[row * 2 * half + half + element] = sine * scale;
}

__global__ void __launch_bounds__(kThreads)
    widen_cached(const std::byte* head, DType dtype, std::int64_t count, float* keys, float* values) {
  wait_for_previous();
  let_next_start();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= 2 * count) return;
  float value = 0;
  if (dtype == DType::kF32) {
    value = load_fresh(reinterpret_cast<const float*>(head) + i);
  } else {
    const std::uint16_t bits = load_fresh(reinterpret_cast<const std::uint16_t*>(head) + i);
    value = dtype == DType::kF16 ? widen(__ushort_as_half(bits)) : widen(__ushort_as_bfloat16(bits));
  }
  (i < count ? keys[i] : values[i - count]) = value;
}

/// The same of a head in codes.
__global__ void __launch_bounds__(kThreads)
    widen_codes(const std::byte* head, KvCodes codes, int head_dim, float* keys, float* values) {
  wait_for_previous();
  let_next_start();
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i >= kKvRows * head_dim) return;
  const int row = i / head_dim;
  const int row_bytes = code_bytes(codes, head_dim);
  const int element = i % head_dim;
  const std::byte* place = head + row * row_bytes;
  std::uint32_t code = 0;
  if (codes == KvCodes::kInt8) {
    code = load_fresh(reinterpret_cast<const std::uint8_t*>(place) + element);
  } else {
    code =
        load_fresh(reinterpret_cast<const std::uint32_t*>(place) + element / 8) >> 4 * nibble_place(element % 8) & 15U;
  }
  const float2 pair = widen_word<__half>(load_fresh(code_pair_place(head, row, row_bytes)));
  const float value = fmaf(static_cast<float>(code), pair.x, pair.y);
  (row < kKvRows / 2 ? keys[i] : values[i - kKvRows / 2 * head_dim]) = value;
}

dim3 grid_of(std::int64_t blocks) { return dim3(static_cast<unsigned>(blocks)); }

template <typename T>
cudaError_t prepare_rows_of(const KernelContext& context, const PrepareRows& args) {
  constexpr std::int64_t kColumns = 4 * kThreads;  // of a pass of the block
  const bool plain = args.input_order == nullptr && args.cols % 4 == 0 && args.stride % 4 == 0;
  const dim3 grid = grid_of(args.rows);
  if (!plain || args.stride > 8 * kColumns) return launch(context, prepare<T>, grid, kThreads, 0, args);
  if (args.stride <= kColumns) return launch(context, prepare_once<T, 1>, grid, kThreads, 0, args);
  if (args.stride <= 2 * kColumns) return launch(context, prepare_once<T, 2>, grid, kThreads, 0, args);
  if (args.stride <= 4 * kColumns) return launch(context, prepare_once<T, 4>, grid, kThreads, 0, args);
  return launch(context, prepare_once<T, 8>, grid, kThreads, 0, args);
}

}  // namespace

cudaError_t prepare_rows(const KernelContext& context, const PrepareRows& args) {
  switch (args.format) {
    case WeightFormat::kF16: return prepare_rows_of<__half>(context, args);
    case WeightFormat::kBF16: return prepare_rows_of<__nv_bfloat16>(context, args);
    case WeightFormat::kF32: return prepare_rows_of<float>(context, args);
    default: return cudaErrorInvalidValue;
  }
}

cudaError_t norm_rows(const KernelContext& context, const DeviceNorm& norm, const float* x, std::int64_t cols,
                      const std::int32_t* wanted, std::int64_t count, float* out) {
  if (count == 0) return cudaSuccess;
  return prepare_rows(context, {.x = x,
                                .row_index = wanted,
                                .norm = norm,
                                .rows = count,
                                .cols = cols,
                                .format = WeightFormat::kF32,
                                .out = out,
                                .stride = cols});
}

cudaError_t embed(const KernelContext& context, const DeviceWeight& table, const DeviceBatch& batch, float scale,
                  float* x) {
  const dim3 grid(static_cast<unsigned>(batch.rows), static_cast<unsigned>(ceil_div(table.cols, kEmbedCols)));
  return launch(context, embed_rows, grid, kThreads, 0, table, batch.tokens, batch.sampled, scale, x);
}

cudaError_t rope_angles(const KernelContext& context, const float* inverse_frequencies, std::int64_t half, float scale,
                        const DeviceBatch& batch, float* angles) {
  if (half == 0) return cudaSuccess;
  return launch(context, find_angles, grid_of(ceil_div(batch.rows * half, kThreads)), kThreads, 0, inverse_frequencies,
                half, scale, batch.positions, static_cast<std::int64_t>(batch.rows), angles);
}

cudaError_t read_kv(const KernelContext& context, const KvCacheView& cache, std::int64_t block, std::int64_t layer,
                    std::int64_t kv_head, float* keys, float* values) {
  const std::int64_t count = kKvBlockTokens * cache.layout.head_dim;
  const dim3 grid = grid_of(ceil_div(2 * count, kThreads));
  const std::byte* head = cache.head(block, layer, kv_head);
  if (cache.layout.codes != KvCodes::kNone) {
    return launch(context, widen_codes, grid, kThreads, 0, head, cache.layout.codes,
                  static_cast<int>(cache.layout.head_dim), keys, values);
  }
  return launch(context, widen_cached, grid, kThreads, 0, head, cache.layout.dtype, count, keys, values);
}

}  // namespace lanner::ops::cuda
