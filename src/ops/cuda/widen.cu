// A quantized weight as a dense fp16 matrix, for products of many rows.
//
// Bound: bytes, 0.5 or 1 read and 2 written for each element; where the matrix stays in the second-level cache the
// product that follows reads it from there. A thread takes eight columns, which lie in one group (groups are multiples
// of 16), and writes 16 bytes.

#include "ops/cuda/device.cuh"
#include "ops/cuda/widen.h"

namespace lanner::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 8;

__global__ void __launch_bounds__(kThreads)
    widen_codes(const __grid_constant__ DeviceWeight weight, __half* out, std::int64_t stride) {
  wait_for_previous();
  let_next_start();
  const std::int64_t vectors = stride / kColumns;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= weight.rows * vectors) return;
  const std::int64_t row = i / vectors;
  const std::int64_t col = i % vectors * kColumns;
  uint4 result = {0, 0, 0, 0};
  if (col < weight.cols) {
    const auto* codes = static_cast<const std::uint8_t*>(weight.data) + row * weight.stride;
    const std::int64_t index = pair_index(weight, row, col);
    const float2 pair = scale_and_offset(weight.scale_format, load_scale(weight.scale_format, weight.scales, index));
    float value[kColumns];
    if (weight.format == WeightFormat::kInt8) {
      const uint2 words = __ldg(reinterpret_cast<const uint2*>(codes + col));
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const std::uint32_t word = c < 4 ? words.x : words.y;
        value[c] = static_cast<float>(word >> (8 * (c % 4)) & 255U) - 128.0F;
      }
    } else {
      const std::uint32_t word = __ldg(int4_word(weight, row, col));
#pragma unroll
      for (int c = 0; c < kColumns; ++c) value[c] = static_cast<float>(word >> (4 * nibble_place(c)) & 15U);
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) value[c] = fmaf(pair.x, value[c], pair.y);
    result = make_uint4(operand_word<__half>(value[0], value[1]), operand_word<__half>(value[2], value[3]),
                        operand_word<__half>(value[4], value[5]), operand_word<__half>(value[6], value[7]));
  }
  *reinterpret_cast<uint4*>(out + row * stride + col) = result;
}

}  // namespace

cudaError_t widen_weight(const KernelContext& context, const DeviceWeight& weight, void* out, std::int64_t stride) {
  const std::int64_t threads = weight.rows * (stride / kColumns);
  return launch(context, widen_codes, dim3(static_cast<unsigned>(ceil_div(threads, kThreads))), kThreads, 0, weight,
                static_cast<__half*>(out), stride);
}

}  // namespace lanner::ops::cuda
