#pragma once
// Products of matrices that lie in shared memory, by the four warps of a warpgroup (wgmma, compute capability 9.0a),
// and the copies that bring them there (TMA), with the barriers on which both wait.
//
// Operands lie in rows of 64 elements, 128 bytes, one below the other, at a multiple of 1024 bytes, their 16-byte
// pieces exchanged as CU_TENSOR_MAP_SWIZZLE_128B does. docs.nvidia.com/cuda/parallel-thread-execution, "Asynchronous
// Warpgroup Level Matrix Multiply-Accumulate Instructions".

#include <cuda.h>

#include "ops/cuda/device.cuh"

// Instructions of this architecture alone: elsewhere these functions do nothing and are not called.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define LANNER_WARPGROUPS 1
#else
#define LANNER_WARPGROUPS 0
#endif

namespace lanner::ops::cuda {

inline constexpr int kWarpgroup = 128;

/// All warps of a warpgroup change the number of registers that each of their threads has.
template <int kCount>
__device__ __forceinline__ void take_registers() {
#if LANNER_WARPGROUPS
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
#endif
}
template <int kCount>
__device__ __forceinline__ void give_registers() {
#if LANNER_WARPGROUPS
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
#endif
}

// --- barriers in shared memory ---------------------------------------------------------------------------------------

__device__ __forceinline__ void barrier_init(std::uint64_t* barrier, int arrivals) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
#endif
}
/// Makes initialised barriers visible to the copies and to the cluster.
__device__ __forceinline__ void barrier_fence() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
__device__ __forceinline__ void barrier_arrive(std::uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}
/// The same at the barrier that lies at this place in the cluster's block `rank`.
__device__ __forceinline__ void barrier_arrive_at(std::uint64_t* barrier, int rank) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
#endif
}
/// Arrives, and lets the phase end only when so many bytes were copied, too.
__device__ __forceinline__ void barrier_expect(std::uint64_t* barrier, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
#endif
}
/// Until the phase of this parity has ended.
__device__ __forceinline__ void barrier_wait(std::uint64_t* barrier, unsigned parity) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
#endif
}

/// Among `threads` threads, a multiple of 32; `id` 1 to 15.
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// So many bytes, a multiple of 16, into shared memory; the barrier is told when they are there.
__device__ __forceinline__ void copy_bytes(void* to, const void* from, int bytes, std::uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
#endif
}

/// The same for what is read once: first to leave the second-level cache.
__device__ __forceinline__ void copy_streaming(void* to, const void* from, int bytes, std::uint64_t* barrier,
                                               std::uint64_t policy) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
#endif
}

// --- copies of boxes

__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
#if LANNER_WARPGROUPS
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
#endif
}

/// A box of a matrix into shared memory; the barrier is told when it is there. c0: the first column.
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap& map, std::uint64_t* barrier, std::uint64_t policy,
                                         int c0, int c1) {
#if LANNER_WARPGROUPS
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%4, "
      "%5}], [%2], %3;" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "l"(policy), "r"(c0), "r"(c1)
      : "memory");
#endif
}
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap& map, std::uint64_t* barrier, std::uint64_t policy,
                                         int c0, int c1, int c2, int c3) {
#if LANNER_WARPGROUPS
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%4, %5, "
      "%6, %7}], [%2], %3;" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "l"(policy), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
#endif
}
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap& map, std::uint64_t* barrier, std::uint64_t policy,
                                         int c0, int c1, int c2, int c3, int c4) {
#if LANNER_WARPGROUPS
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%4, %5, "
      "%6, %7, %8}], [%2], %3;" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "l"(policy), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
      : "memory");
#endif
}

/// A box into the same place of several blocks of the cluster, bit i of `blocks` for block i; the barrier at this place
/// of each is told.
__device__ __forceinline__ void copy_box_to(std::uint16_t blocks, void* to, const CUtensorMap& map,
                                            std::uint64_t* barrier, std::uint64_t policy, int c0, int c1) {
#if LANNER_WARPGROUPS
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint "
      "[%0], [%1, {%5, %6}], [%2], %3, %4;" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "h"(blocks), "l"(policy), "r"(c0), "r"(c1)
      : "memory");
#endif
}

// --- products

/// What the instruction needs to know of an operand: where it lies; groups of eight rows are 1024 bytes apart. Where
/// the rows are those of the sum, the product's inner dimension lies along them and 64 elements are all there may be.
/// Else 64 elements of a row are columns of the sum, and those that follow lie `next` bytes behind.
__device__ __forceinline__ std::uint64_t operand_at(const void* place, int next = 16) {
  const std::uint64_t address = (shared_address(place) & 0x3FFFFU) >> 4U;
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62U;
  constexpr std::uint64_t kGroupStride = std::uint64_t{1024 >> 4} << 32U;
  return kSwizzle128 | kGroupStride | (static_cast<std::uint64_t>(next >> 4) << 16U) | address;
}

__device__ __forceinline__ void products_begin() {
#if LANNER_WARPGROUPS
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void products_commit() {
#if LANNER_WARPGROUPS
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int kPending>
__device__ __forceinline__ void products_wait() {
#if LANNER_WARPGROUPS
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}

/// sum (64 x kWidth) = a (64 x 16) times b (kWidth x 16) transposed, plus sum where `add`. Warp w of the group holds
/// rows 16w to 16w + 15; a lane, of rows r = lane / 4 and r + 8, columns c = 8j + lane % 4 * 2 and c + 1, in sum[4j]
/// (r, c), (r, c + 1), (r + 8, c), (r + 8, c + 1).
template <typename T, int kWidth>
struct Warpgroup;

#define LANNER_FOUR(i) "+f"(sum[i]), "+f"(sum[(i) + 1]), "+f"(sum[(i) + 2]), "+f"(sum[(i) + 3])
#define LANNER_SIXTEEN(i) LANNER_FOUR(i), LANNER_FOUR((i) + 4), LANNER_FOUR((i) + 8), LANNER_FOUR((i) + 12)
#define LANNER_SIXTY_FOUR(i) \
  LANNER_SIXTEEN(i), LANNER_SIXTEEN((i) + 16), LANNER_SIXTEEN((i) + 32), LANNER_SIXTEEN((i) + 48)
template <>
struct Warpgroup<__half, 16> {
  __device__ static __forceinline__ void multiply(float (&sum)[8], std::uint64_t a, std::uint64_t b, int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %10, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7}, "
        "%8, %9, p, 1, 1, 0, 0;\n}"
        : LANNER_FOUR(0), LANNER_FOUR(4)
        : "l"(a), "l"(b), "r"(add));
#endif
  }
};
template <>
struct Warpgroup<__nv_bfloat16, 16> {
  __device__ static __forceinline__ void multiply(float (&sum)[8], std::uint64_t a, std::uint64_t b, int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %10, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7}, "
        "%8, %9, p, 1, 1, 0, 0;\n}"
        : LANNER_FOUR(0), LANNER_FOUR(4)
        : "l"(a), "l"(b), "r"(add));
#endif
  }
};
template <>
struct Warpgroup<__half, 32> {
  __device__ static __forceinline__ void multiply(float (&sum)[16], std::uint64_t a, std::uint64_t b, int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
        "%16, %17, p, 1, 1, 0, 0;\n}"
        : LANNER_SIXTEEN(0)
        : "l"(a), "l"(b), "r"(add));
#endif
  }
};
template <>
struct Warpgroup<__nv_bfloat16, 32> {
  __device__ static __forceinline__ void multiply(float (&sum)[16], std::uint64_t a, std::uint64_t b, int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
        "%16, %17, p, 1, 1, 0, 0;\n}"
        : LANNER_SIXTEEN(0)
        : "l"(a), "l"(b), "r"(add));
#endif
  }
};
template <>
struct Warpgroup<__half, 64> {
  __device__ static __forceinline__ void multiply(float (&sum)[32], std::uint64_t a, std::uint64_t b, int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, p, 1, 1, 0, 0;\n}"
        : LANNER_SIXTEEN(0), LANNER_SIXTEEN(16)
        : "l"(a), "l"(b), "r"(add));
#endif
  }
};
template <>
struct Warpgroup<__nv_bfloat16, 64> {
  __device__ static __forceinline__ void multiply(float (&sum)[32], std::uint64_t a, std::uint64_t b, int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, p, 1, 1, 0, 0;\n}"
        : LANNER_SIXTEEN(0), LANNER_SIXTEEN(16)
        : "l"(a), "l"(b), "r"(add));
#endif
  }
};
template <>
struct Warpgroup<__half, 128> {
  __device__ static __forceinline__ void multiply(float (&sum)[64], std::uint64_t a, std::uint64_t b, int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, "
        "%59, %60, %61, %62, %63}, "
        "%64, %65, p, 1, 1, 0, 0;\n}"
        : LANNER_SIXTY_FOUR(0)
        : "l"(a), "l"(b), "r"(add));
#endif
  }
};
template <>
struct Warpgroup<__nv_bfloat16, 128> {
  __device__ static __forceinline__ void multiply(float (&sum)[64], std::uint64_t a, std::uint64_t b, int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, "
        "%59, %60, %61, %62, %63}, "
        "%64, %65, p, 1, 1, 0, 0;\n}"
        : LANNER_SIXTY_FOUR(0)
        : "l"(a), "l"(b), "r"(add));
#endif
  }
};
template <>
struct Warpgroup<__half, 256> {
  __device__ static __forceinline__ void multiply(float (&sum)[128], std::uint64_t a, std::uint64_t b, int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, "
        "%59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, "
        "%78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, "
        "%97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, "
        "%114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, p, 1, 1, 0, 0;\n}"
        : LANNER_SIXTY_FOUR(0), LANNER_SIXTY_FOUR(64)
        : "l"(a), "l"(b), "r"(add));
#endif
  }
};
template <>
struct Warpgroup<__nv_bfloat16, 256> {
  __device__ static __forceinline__ void multiply(float (&sum)[128], std::uint64_t a, std::uint64_t b, int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, "
        "%59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, "
        "%78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, "
        "%97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, "
        "%114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, p, 1, 1, 0, 0;\n}"
        : LANNER_SIXTY_FOUR(0), LANNER_SIXTY_FOUR(64)
        : "l"(a), "l"(b), "r"(add));
#endif
  }
};

/// The same with `a` in registers, as multiply_add() of device.cuh takes it: each warp its 16 rows. kAcross: b is
/// (16 x kWidth), rows of the inner dimension.
template <typename T, int kWidth, int kAcross>
struct WarpgroupRows;

template <int kAcross>
struct WarpgroupRows<__half, 64, kAcross> {
  __device__ static __forceinline__ void multiply(float (&sum)[32], const std::uint32_t (&a)[4], std::uint64_t b,
                                                  int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}"
        : LANNER_SIXTEEN(0), LANNER_SIXTEEN(16)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kAcross));
#endif
  }
};
template <int kAcross>
struct WarpgroupRows<__nv_bfloat16, 64, kAcross> {
  __device__ static __forceinline__ void multiply(float (&sum)[32], const std::uint32_t (&a)[4], std::uint64_t b,
                                                  int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}"
        : LANNER_SIXTEEN(0), LANNER_SIXTEEN(16)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kAcross));
#endif
  }
};
template <int kAcross>
struct WarpgroupRows<__half, 80, kAcross> {
  __device__ static __forceinline__ void multiply(float (&sum)[40], const std::uint32_t (&a)[4], std::uint64_t b,
                                                  int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %45, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n80k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39}, "
        "{%40, %41, %42, %43}, %44, p, 1, 1, %46;\n}"
        : LANNER_SIXTEEN(0), LANNER_SIXTEEN(16), LANNER_FOUR(32), LANNER_FOUR(36)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kAcross));
#endif
  }
};
template <int kAcross>
struct WarpgroupRows<__nv_bfloat16, 80, kAcross> {
  __device__ static __forceinline__ void multiply(float (&sum)[40], const std::uint32_t (&a)[4], std::uint64_t b,
                                                  int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %45, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n80k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39}, "
        "{%40, %41, %42, %43}, %44, p, 1, 1, %46;\n}"
        : LANNER_SIXTEEN(0), LANNER_SIXTEEN(16), LANNER_FOUR(32), LANNER_FOUR(36)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kAcross));
#endif
  }
};
template <int kAcross>
struct WarpgroupRows<__half, 96, kAcross> {
  __device__ static __forceinline__ void multiply(float (&sum)[48], const std::uint32_t (&a)[4], std::uint64_t b,
                                                  int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %53, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n96k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47}, "
        "{%48, %49, %50, %51}, %52, p, 1, 1, %54;\n}"
        : LANNER_SIXTEEN(0), LANNER_SIXTEEN(16), LANNER_SIXTEEN(32)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kAcross));
#endif
  }
};
template <int kAcross>
struct WarpgroupRows<__nv_bfloat16, 96, kAcross> {
  __device__ static __forceinline__ void multiply(float (&sum)[48], const std::uint32_t (&a)[4], std::uint64_t b,
                                                  int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %53, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47}, "
        "{%48, %49, %50, %51}, %52, p, 1, 1, %54;\n}"
        : LANNER_SIXTEEN(0), LANNER_SIXTEEN(16), LANNER_SIXTEEN(32)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kAcross));
#endif
  }
};
template <int kAcross>
struct WarpgroupRows<__half, 128, kAcross> {
  __device__ static __forceinline__ void multiply(float (&sum)[64], const std::uint32_t (&a)[4], std::uint64_t b,
                                                  int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, "
        "%59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, p, 1, 1, %70;\n}"
        : LANNER_SIXTY_FOUR(0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kAcross));
#endif
  }
};
template <int kAcross>
struct WarpgroupRows<__nv_bfloat16, 128, kAcross> {
  __device__ static __forceinline__ void multiply(float (&sum)[64], const std::uint32_t (&a)[4], std::uint64_t b,
                                                  int add) {
#if LANNER_WARPGROUPS
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, "
        "%59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, p, 1, 1, %70;\n}"
        : LANNER_SIXTY_FOUR(0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kAcross));
#endif
  }
};

#undef LANNER_FOUR
#undef LANNER_SIXTEEN
#undef LANNER_SIXTY_FOUR

}  // namespace lanner::ops::cuda
