// Operations on whole rows of activations: norms (also as the first half of a large product), embeddings, rotary
// angles, and the reading of the cache for tests.
//
// Bound: the bytes read and written, all small beside the weights; one block a row, neighbouring threads on
// neighbouring columns. A norm reads its row two or three times, from the second-level cache but for the first.

#include "ops/cuda/device.cuh"
#include "ops/cuda/rows.h"

namespace lanner::ops::cuda {
namespace {

constexpr int kThreads = 256;

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
    const std::uint32_t word = __ldg(reinterpret_cast<const std::uint32_t*>(bytes) + col / 8);
    code = static_cast<float>(word >> (4 * nibble_place(static_cast<int>(col % 8))) & 15U);
  }
  const std::int64_t index = row * (weight.cols / weight.group) + col / weight.group;
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
  for (std::int64_t col = threadIdx.x; col < table.cols; col += kThreads) {
    x[row * table.cols + col] = scale * weight_element(table, token, col);
  }
}

__global__ void __launch_bounds__(kThreads)
    find_angles(const float* inverse_frequencies, std::int64_t half, float scale, const std::int32_t* positions,
                std::int64_t rows, float* angles) {
  wait_for_previous();
  let_next_start();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows * half) return;
  const std::int64_t row = i / half;
  const std::int64_t element = i % half;
  const float angle = static_cast<float>(load_fresh(positions + row)) * __ldg(inverse_frequencies + element);
  float sine = 0;
  float cosine = 0;
  sincosf(angle, &sine, &cosine);
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

dim3 grid_of(std::int64_t blocks) { return dim3(static_cast<unsigned>(blocks)); }

}  // namespace

cudaError_t prepare_rows(const KernelContext& context, const PrepareRows& args) {
  switch (args.format) {
    case WeightFormat::kF16: return launch(context, prepare<__half>, grid_of(args.rows), kThreads, 0, args);
    case WeightFormat::kBF16: return launch(context, prepare<__nv_bfloat16>, grid_of(args.rows), kThreads, 0, args);
    case WeightFormat::kF32: return launch(context, prepare<float>, grid_of(args.rows), kThreads, 0, args);
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
  return launch(context, embed_rows, grid_of(batch.rows), kThreads, 0, table, batch.tokens, batch.sampled, scale, x);
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
  return launch(context, widen_cached, grid_of(ceil_div(2 * count, kThreads)), kThreads, 0,
                static_cast<const std::byte*>(cache.head(block, layer, kv_head)), cache.layout.dtype, count, keys,
                values);
}

}  // namespace lanner::ops::cuda
