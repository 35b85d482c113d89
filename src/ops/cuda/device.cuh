#pragma once
// What the kernels share: element types, sums over a warp, loads that stream, and how a kernel is launched.
//
// Order between kernels. Every kernel of this folder calls wait_for_previous() before it touches anything but weights,
// norms and other constants, the batch, and keys and values of tokens older than the step: the batch comes by a
// transfer between steps, which orders these. At least one block of every launch waits. let_next_start() comes right
// behind it (at the top where that pays: the next one waits all the same). Where the launch allows it (compute
// capability 9.0), the next kernel of the stream may then be resident and ask for its first weights while this one
// still works; what it reads behind its own wait is complete. Since a kernel may so be older than the data it reads,
// activations are read with load_fresh(), past the first-level cache; only constants take the read-only road.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "ops/cuda/kernels.h"

namespace lanner::ops::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFU;

__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

template <typename T>
__device__ __forceinline__ T load_fresh(const T* place) {
  return __ldcg(place);
}

/// Brings the line of a constant into the second-level cache.
__device__ __forceinline__ void prefetch(const void* place) { asm volatile("prefetch.global.L2 [%0];" ::"l"(place)); }

/// 16 bytes of a weight, read once: not kept in the first level, first to leave the second.
__device__ __forceinline__ std::uint64_t streaming_policy() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/// For what is read again.
__device__ __forceinline__ std::uint64_t keeping_policy() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ uint4 load_streaming(const void* place, std::uint64_t policy) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(place), "l"(policy));
  return v;
}

// --- elements -----------------------------------------------------------------------------------------------------

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ __forceinline__ T narrow(float value);
template <>
__device__ __forceinline__ float narrow<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __half narrow<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

/// The same for operands of products: fp16 has no room above 65504, and an infinity would spoil the whole sum. One that
/// is there already, or a NaN, must show.
template <typename T>
__device__ __forceinline__ T narrow_operand(float value) {
  return narrow<T>(value);
}
template <>
__device__ __forceinline__ __half narrow_operand<__half>(float value) {
  return __float2half_rn(fabsf(value) < INFINITY ? fminf(fmaxf(value, -65504.0F), 65504.0F) : value);
}

__device__ __forceinline__ float2 widen_pair(__half2 pair) { return __half22float2(pair); }
__device__ __forceinline__ float2 widen_pair(__nv_bfloat162 pair) { return __bfloat1622float2(pair); }

template <typename T>
struct PairOf;
template <>
struct PairOf<__half> {
  using Type = __half2;
};
template <>
struct PairOf<__nv_bfloat16> {
  using Type = __nv_bfloat162;
};

template <typename T>
__device__ __forceinline__ float2 widen_word(std::uint32_t word) {
  using Pair = typename PairOf<T>::Type;
  return widen_pair(*reinterpret_cast<const Pair*>(&word));
}

/// Two numbers as the 16-bit pair of a product's operand; `low` takes the lower half.
template <typename T>
__device__ __forceinline__ std::uint32_t operand_word(float low, float high) {
  typename PairOf<T>::Type pair;
  pair.x = narrow_operand<T>(low);
  pair.y = narrow_operand<T>(high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

/// The same of numbers that have room in the type, or may become an infinity.
template <typename T>
__device__ __forceinline__ std::uint32_t rounded_word(float low, float high) {
  typename PairOf<T>::Type pair;
  pair.x = narrow<T>(low);
  pair.y = narrow<T>(high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

/// An activation in the type in which it is handed over.
__device__ __forceinline__ void store_operand(WeightFormat format, float* out, std::int64_t index, float value) {
  if (format == WeightFormat::kF16) {
    reinterpret_cast<__half*>(out)[index] = narrow_operand<__half>(value);
  } else if (format == WeightFormat::kBF16) {
    reinterpret_cast<__nv_bfloat16*>(out)[index] = narrow_operand<__nv_bfloat16>(value);
  } else {
    out[index] = value;
  }
}

/// Two neighbours, the first at an even index.
__device__ __forceinline__ void store_operand_pair(WeightFormat format, float* out, std::int64_t index, float a,
                                                   float b) {
  if (format == WeightFormat::kF16) {
    reinterpret_cast<std::uint32_t*>(out)[index / 2] = operand_word<__half>(a, b);
  } else if (format == WeightFormat::kBF16) {
    reinterpret_cast<std::uint32_t*>(out)[index / 2] = operand_word<__nv_bfloat16>(a, b);
  } else {
    *reinterpret_cast<float2*>(out + index) = make_float2(a, b);
  }
}

// --- sums and largest over threads ----------------------------------------------------------------------------------

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

/// The sum over a block of `kThreads` in every thread. `room` (kThreads / 32) is shared memory that nobody else uses
/// until the next barrier after the call.
template <int kThreads>
__device__ __forceinline__ float block_sum(float value, float* room) {
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kThreads / kWarp; ++warp) sum += room[warp];
  __syncthreads();
  return sum;
}

__device__ __forceinline__ std::uint32_t shared_address(const void* place) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(place));
}

// --- clusters of blocks

__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
/// A float at the same place in the shared memory of the cluster's block `rank`.
__device__ __forceinline__ float load_from_block(const float* place, int rank) {
  float value = 0;
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %1, %2;\n"
      "ld.shared::cluster.f32 %0, [there];\n"
      "}"
      : "=f"(value)
      : "r"(shared_address(place)), "r"(rank)
      : "memory");
#endif
  return value;
}

/// Four of them, at a multiple of 16 bytes.
__device__ __forceinline__ float4 load_four_from_block(const float* place, int rank) {
  float4 v = {0, 0, 0, 0};
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %4, %5;\n"
      "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there];\n"
      "}"
      : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
      : "r"(shared_address(place)), "r"(rank)
      : "memory");
#endif
  return v;
}
/// A barrier of all threads of the cluster.
__device__ __forceinline__ void cluster_barrier() {
  cluster_arrive();
  cluster_wait();
}

// --- copies into shared memory

/// 16 bytes, asynchronously, past the first-level cache; zeros where not `valid` (then nothing is read).
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
/// The same of what is always there, for an operand less.
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// --- matrix fragments

/// Four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(std::uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

/// sum (16x8) += a (16x16, by rows) · b (16x8, by columns).
template <typename T>
__device__ __forceinline__ void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                             std::uint32_t b1);
template <>
__device__ __forceinline__ void multiply_add<__half>(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                     std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply_add<__nv_bfloat16>(float (&sum)[4], const std::uint32_t (&a)[4],
                                                            std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// --- small arithmetic

/// f of every number, in code that is there once: what is seldom run shall not take the room of other instructions.
template <int kCount, typename Function>
__device__ __forceinline__ void each_in_turn(float (&v)[kCount], const Function& f) {
#pragma unroll 1
  for (int n = 0; n < kCount; ++n) {
    const float first = f(v[0]);
#pragma unroll
    for (int i = 0; i + 1 < kCount; ++i) v[i] = v[i + 1];
    v[kCount - 1] = first;
  }
}

__device__ __forceinline__ float gated(Gate gate, float x) {
  switch (gate) {
    case Gate::kSilu: return x / (1.0F + expf(-x));
    // 1 + erf loses its digits far on the left; erfc keeps them.
    case Gate::kGelu: return 0.5F * x * erfcf(x * -0.70710678F);
    case Gate::kGeluTanh: return 0.5F * x * (1.0F + tanhf(0.79788456F * (x + 0.044715F * x * x * x)));
  }
  return 0;
}

__device__ __forceinline__ float capped(float value, float cap) { return cap == 0 ? value : cap * tanhf(value / cap); }

/// The (code * scale + offset) of a quantized weight's group, whichever way it is stored.
__device__ __forceinline__ float2 scale_and_offset(ScaleFormat format, uint2 raw) {
  if (format == ScaleFormat::kFloat) return {__uint_as_float(raw.x), __uint_as_float(raw.y)};
  const float2 pair = widen_word<__half>(raw.x);
  return format == ScaleFormat::kHalf ? pair : make_float2(pair.x, -pair.x * pair.y);
}

/// The word of an int4 weight that holds a column's code.
__device__ __forceinline__ const std::uint32_t* int4_word(const DeviceWeight& weight, std::int64_t row,
                                                          std::int64_t col) {
  const auto* bytes = static_cast<const std::uint8_t*>(weight.data);
  bytes += weight.panels ? panel_word(weight.cols, row, col) : row * weight.stride + col / 8 * 4;
  return reinterpret_cast<const std::uint32_t*>(bytes);
}

/// Of the pair of a column's group.
__device__ __forceinline__ std::int64_t pair_index(const DeviceWeight& weight, std::int64_t row, std::int64_t col) {
  const std::int64_t groups = weight.cols / weight.group;
  return weight.panels ? panel_pair(groups, row, col / weight.group) : row * groups + col / weight.group;
}

/// The stored pair of that index.
__device__ __forceinline__ uint2 load_scale(ScaleFormat format, const void* scales, std::int64_t index) {
  if (format == ScaleFormat::kFloat) return __ldg(static_cast<const uint2*>(scales) + index);
  return {__ldg(static_cast<const std::uint32_t*>(scales) + index), 0};
}

/// int4_nibble() for device code.
__device__ constexpr int nibble_place(int column) { return column % 2 * 4 + column / 2; }

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

// --- launches

/// launch() with clusters of so many neighbouring blocks; they divide the grid.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_clusters(const KernelContext& context, void (*kernel)(Parameters...), dim3 grid, int threads,
                            std::size_t shared_bytes, dim3 cluster, const Arguments&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (context.dependent_launch) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster.x * cluster.y * cluster.z > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {cluster.x, cluster.y, cluster.z};
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = context.stream;
  config.attrs = attributes;
  config.numAttrs = count;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

/// kernel<<<grid, threads, shared>>>(arguments...) on the context's stream, with the right to start early where the
/// device has it.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(const KernelContext& context, void (*kernel)(Parameters...), dim3 grid, int threads,
                   std::size_t shared_bytes, const Arguments&... arguments) {
  return launch_clusters(context, kernel, grid, threads, shared_bytes, dim3(1), arguments...);
}

/// The first error ends a chain of launches.
#define LANNER_RETURN_IF_CUDA_ERROR(expression)                                        \
  do {                                                                                 \
    if (const cudaError_t error_ = (expression); error_ != cudaSuccess) return error_; \
  } while (false)

}  // namespace lanner::ops::cuda
