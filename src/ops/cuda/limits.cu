// What the device can do at most: one kernel that reads memory as fast as it comes, and cuBLASLt's product of large
// matrices. The best of several runs is a limit; an average would be what else the machine did.

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "ops/cuda/cublas_lt.h"
#include "ops/cuda/cuda_error.h"
#include "ops/cuda/device_memory.h"

namespace lanner::ops {
namespace cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kLoads = 8;  // of 16 bytes, in flight for each thread
constexpr int kRuns = 8;
constexpr std::int64_t kMostBytes = std::int64_t{4} << 30;
constexpr std::int64_t kLeastBytes = std::int64_t{256} << 20;  // several times the second-level cache
constexpr std::int64_t kSide = 8192;

/// Reads `count` vectors of 16 bytes once. The sum is written only if it has one value in four billion, so that no read
/// can be left out and nothing is written.
__global__ void __launch_bounds__(kThreads) read_all(const uint4* data, std::int64_t count, unsigned* out) {
  unsigned sum = 0;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (; i + (kLoads - 1) * stride < count; i += kLoads * stride) {
    uint4 v[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) v[k] = __ldcs(data + i + k * stride);
#pragma unroll
    for (int k = 0; k < kLoads; ++k) sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  }
  if (sum == 0x9E3779B9U) *out = sum;
}

/// Numbers of +-1 with many different fractions; zeros would use less power and so run faster.
__global__ void fill_random(__half* data, std::int64_t count) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    unsigned hash = static_cast<unsigned>(i) * 2654435761U + 0x9E3779B9U;
    hash ^= hash >> 15U;
    hash *= 0x85EBCA6BU;
    hash ^= hash >> 13U;
    data[i] = __float2half(static_cast<float>(hash >> 8U) * 0x1p-23F - 1.0F);
  }
}

/// Seconds of the fastest of some runs, after one that does not count.
template <typename Launch>
Result<double> fastest(cudaStream_t stream, const Launch& launch) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  LANNER_RETURN_IF_ERROR(cuda_status(cudaEventCreate(&begin), "an event"));
  LANNER_RETURN_IF_ERROR(cuda_status(cudaEventCreate(&end), "an event"));
  float best = 0;
  cudaError_t error = cudaSuccess;
  for (int run = 0; run <= kRuns && error == cudaSuccess; ++run) {
    cudaEventRecord(begin, stream);
    launch();
    cudaEventRecord(end, stream);
    error = cudaEventSynchronize(end);
    float milliseconds = 0;
    if (error == cudaSuccess) error = cudaEventElapsedTime(&milliseconds, begin, end);
    if (run == 1 || (run > 1 && milliseconds < best)) best = milliseconds;
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  LANNER_RETURN_IF_ERROR(cuda_status(error, "measuring the device"));
  return static_cast<double>(best) / 1e3;
}

Result<double> measure_reading(cudaStream_t stream, int multiprocessors) {
  std::size_t free = 0;
  std::size_t total = 0;
  LANNER_RETURN_IF_ERROR(cuda_status(cudaMemGetInfo(&free, &total), "the device's memory"));
  const std::int64_t bytes = std::clamp(static_cast<std::int64_t>(free) / 2, kLeastBytes, kMostBytes) / 16 * 16;
  LANNER_ASSIGN_OR_RETURN(const DeviceBuffer buffer, DeviceBuffer::allocate(bytes, "measuring the device"));
  LANNER_ASSIGN_OR_RETURN(const DeviceBuffer out, DeviceBuffer::allocate(4, "measuring the device"));
  fill_random<<<multiprocessors * 4, kThreads, 0, stream>>>(buffer.as<__half>(), bytes / 2);
  const int blocks = multiprocessors * 4;
  // The loop leaves out the last vectors that do not fill a round.
  const std::int64_t round = std::int64_t{blocks} * kThreads * kLoads;
  const std::int64_t count = bytes / 16 / round * round;
  LANNER_ASSIGN_OR_RETURN(const double seconds, fastest(stream, [&] {
                            read_all<<<blocks, kThreads, 0, stream>>>(buffer.as<const uint4>(), count,
                                                                      out.as<unsigned>());
                          }));
  return static_cast<double>(count) * 16 / seconds;
}

Result<double> measure_products(cudaStream_t stream, int multiprocessors) {
  LANNER_ASSIGN_OR_RETURN(const DeviceBuffer workspace,
                          DeviceBuffer::allocate(CublasLt::kWorkspaceBytes, "measuring the device"));
  auto library = CublasLt::open(workspace.data());
  if (!library.ok()) return 0.0;
  LANNER_ASSIGN_OR_RETURN(const DeviceBuffer in, DeviceBuffer::allocate(2 * kSide * kSide * 2, "measuring the device"));
  LANNER_ASSIGN_OR_RETURN(const DeviceBuffer out, DeviceBuffer::allocate(kSide * kSide * 4, "measuring the device"));
  fill_random<<<multiprocessors * 4, kThreads, 0, stream>>>(in.as<__half>(), 2 * kSide * kSide);
  GemmArgs args;
  args.input = in.data();
  args.weight = in.as<const __half>() + kSide * kSide;
  args.out = out.as<float>();
  args.input_stride = args.weight_stride = args.out_stride = kSide;
  args.rows = args.width = args.cols = kSide;
  bool done = true;
  LANNER_ASSIGN_OR_RETURN(const double seconds,
                          fastest(stream, [&] { done = (*library)->multiply(args, stream) && done; }));
  return done ? 2.0 * kSide * kSide * kSide / seconds : 0.0;
}

}  // namespace
}  // namespace cuda

Result<CudaLimits> measure_cuda_limits(int device) {
  LANNER_RETURN_IF_ERROR(cuda::cuda_status(cudaSetDevice(device), "the CUDA device cannot be used"));
  cudaDeviceProp properties{};
  LANNER_RETURN_IF_ERROR(cuda::cuda_status(cudaGetDeviceProperties(&properties, device), "the CUDA device"));
  LANNER_ASSIGN_OR_RETURN(const auto stream, cuda::Stream::create());
  CudaLimits limits;
  LANNER_ASSIGN_OR_RETURN(limits.read_bytes_per_s, cuda::measure_reading(stream.get(), properties.multiProcessorCount));
  LANNER_ASSIGN_OR_RETURN(limits.half_ops_per_s, cuda::measure_products(stream.get(), properties.multiProcessorCount));
  return limits;
}

}  // namespace lanner::ops
