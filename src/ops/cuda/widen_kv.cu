// What the prompts of a step see of a cache in codes, as numbers of 16 bits.
//
// Bound: bytes, 0.5 or 1 read and 2 written for each number, of which a prompt's attention then reads every one many
// times, from the second-level cache as long as contexts are short enough for it.
//
// A thread block takes a KV block of one head, whose numbers lie in the order of its codes. A thread takes vectors of
// eight codes, which are of one row (kv_codes.cuh), and has all of them on their way before it widens the first.

#include "ops/cuda/kv_codes.cuh"
#include "ops/cuda/widen_kv.h"

namespace lanner::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVectorCodes = 8;

/// Grid: (blocks of prompts, KV heads).
template <typename T, KvCodes kCodes, int kDim>
__global__ void __launch_bounds__(kThreads)
    widen_blocks(const __grid_constant__ AttentionWork work, const PrefillBlock* blocks, std::byte* out) {
  constexpr int kNumbers = kKvRows * kDim;
  constexpr int kVectors = kNumbers / (kVectorCodes * kThreads);  // of a thread
  static_assert(kNumbers % (kVectorCodes * kThreads) == 0 && kDim % kVectorCodes == 0);
  constexpr int kRowBytes = kDim * kCodeBits<kCodes> / 8;
  constexpr int kVectorBytes = kVectorCodes * kCodeBits<kCodes> / 8;
  const PrefillBlock block = blocks[blockIdx.x];
  const DeviceSlice slice = work.slices[block.slice];
  const std::byte* head = work.cache + work.blocks[slice.first_block + block.index] * work.block_bytes +
                          static_cast<int>(blockIdx.y) * work.head_bytes;
  wait_for_previous();
  let_next_start();
  const int end = (block.index + 1) * static_cast<int>(kKvBlockTokens);
  if (work.window != 0 && end <= slice.first_position - work.window + 1) return;
  CodeWords<kCodes, kVectorCodes> words[kVectors];
  std::uint32_t pairs[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int i = v * kThreads + static_cast<int>(threadIdx.x);
    words[v].load(head + i * kVectorBytes);
    pairs[v] = load_fresh(code_pair_place(head, i / (kDim / kVectorCodes), kRowBytes));
  }
  const std::int64_t place = static_cast<std::int64_t>(blockIdx.x) * work.kv_heads + blockIdx.y;
  auto* to = reinterpret_cast<uint4*>(out + place * (kNumbers * 2));
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    to[v * kThreads + threadIdx.x] =
        make_uint4(number_pair<T>(words[v].pair(0), pairs[v]), number_pair<T>(words[v].pair(1), pairs[v]),
                   number_pair<T>(words[v].pair(2), pairs[v]), number_pair<T>(words[v].pair(3), pairs[v]));
  }
}

template <typename T, KvCodes kCodes>
cudaError_t widen_prompts_of(const KernelContext& context, const AttentionWork& work, const DeviceBatch& batch,
                             std::byte* out) {
  const dim3 grid(static_cast<unsigned>(batch.prefill_block_count), static_cast<unsigned>(work.kv_heads));
  return with_group_head_dim(work.head_dim, [&]<int kDim>() {
    return launch(context, widen_blocks<T, kCodes, kDim>, grid, kThreads, 0, work, batch.prefill_blocks, out);
  });
}

template <typename T>
cudaError_t widen_prompts_to(const KernelContext& context, const AttentionWork& work, const DeviceBatch& batch,
                             std::byte* out) {
  switch (work.codes) {
    case KvCodes::kInt8: return widen_prompts_of<T, KvCodes::kInt8>(context, work, batch, out);
    case KvCodes::kInt4: return widen_prompts_of<T, KvCodes::kInt4>(context, work, batch, out);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace

cudaError_t widen_prompts(const KernelContext& context, const AttentionWork& work, const DeviceBatch& batch,
                          std::byte* out) {
  return work.dtype == DType::kF16 ? widen_prompts_to<__half>(context, work, batch, out)
                                   : widen_prompts_to<__nv_bfloat16>(context, work, batch, out);
}

}  // namespace lanner::ops::cuda
