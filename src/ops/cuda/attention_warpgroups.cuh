#pragma once
// Attention of many query rows of one sequence on the tensor cores of Hopper: prompts.
//
// Bound: the tensor cores, 4 * head_dim operations for each query and key, and the exponential units, one for each.
//
// A block takes 64 query rows of one or two heads of one KV head, a warpgroup those of one head, and walks the context
// a KV block of 64 tokens at a time (FlashAttention-2, arXiv 2307.08691). One more warp copies keys and values into a
// ring of stages (TMA); they lie there as columns 0 to 63 of 64 tokens, then the next 64 columns. Queries and the
// weights of softmax are operands in registers. While one warpgroup weighs its scores the other multiplies; in a
// warpgroup the product with the values of a block and that with the next block's keys run one behind the other.
//
// What lies in the cache behind the slice's last token may be anything: scores of it are replaced, and its values are
// set to zero in shared memory. Whole blocks that no row of the tile sees are not read.

#include "ops/cuda/attention.h"
#include "ops/cuda/warpgroup.cuh"

namespace lanner::ops::cuda {

inline constexpr int kGroupQueries = static_cast<int>(kPrefillRows);
inline constexpr int kGroupKeys = static_cast<int>(kKvBlockTokens);
static_assert(kGroupQueries == 64 && kGroupKeys == 64);

template <int kDim, int kWorkers>
struct GroupShape {
  static constexpr int kSlabs = (kDim + 63) / 64;  // of 64 columns
  static constexpr int kSlabBytes = kGroupKeys * 64 * 2;
  static constexpr int kStageBytes = 2 * kSlabs * kSlabBytes;
  static constexpr int kStages = 3;
  static constexpr int kBlocks = kWorkers == 1 ? 2 : 1;  // on a multiprocessor
  // A whole warpgroup for the copies, because it is warpgroups that hand registers over.
  static constexpr int kThreads = (kWorkers + 1) * kWarpgroup;
  static constexpr int kCopyRegisters = 40;
  static constexpr int kRegisters = kWorkers == 1 ? 216 : 232;
  static constexpr int kBytes = 1024 + kStages * kStageBytes + 2 * kStages * 8;
};

struct GroupPlace {
  int first_row;  // of the batch
  int rows;       // of kGroupQueries
  int position;   // of the first row
  int tokens;     // of the context that the last row sees
  int kv_head;
  int first_head;  // of the first warpgroup
  int heads;       // that exist
  int first_block;
  int end_block;
  const std::int32_t* blocks;
};

/// False: the tile is empty.
__device__ __forceinline__ bool find_group_place(const AttentionWork& work, const PrefillTile* tiles, int workers,
                                                 GroupPlace* place) {
  const PrefillTile tile = tiles[gridDim.x - 1 - blockIdx.x];  // blocks start in order, and late rows see the most
  if (tile.slice < 0) return false;
  const DeviceSlice slice = work.slices[tile.slice];
  const int group = work.heads / work.kv_heads;
  const int in_group = static_cast<int>(blockIdx.y) / work.kv_heads * workers;
  place->first_row = tile.first_row;
  place->rows = min(kGroupQueries, slice.first_row + slice.rows - tile.first_row);
  place->position = slice.first_position + tile.first_row - slice.first_row;
  place->tokens = place->position + place->rows;
  place->kv_head = static_cast<int>(blockIdx.y) % work.kv_heads;
  place->first_head = place->kv_head * group + in_group;
  place->heads = group - in_group;
  place->first_block = work.window == 0 ? 0 : max(0, place->position - work.window + 1) / kGroupKeys;
  place->end_block = (place->tokens + kGroupKeys - 1) / kGroupKeys;
  place->blocks = work.blocks + slice.first_block;
  return place->rows > 0;
}

template <int kDim, int kWorkers>
struct GroupRing {
  using Shape = GroupShape<kDim, kWorkers>;
  std::byte* stages;     // (kStages, keys and values, kSlabs, 64 tokens, 64 columns)
  std::uint64_t* full;   // (kStages)
  std::uint64_t* empty;  // (kStages)

  __device__ explicit GroupRing(std::byte* base) {
    stages = base + (1024 - shared_address(base) % 1024) % 1024;
    full = reinterpret_cast<std::uint64_t*>(stages + Shape::kStages * Shape::kStageBytes);
    empty = full + Shape::kStages;
  }
  __device__ std::byte* keys(int count) const { return stages + count % Shape::kStages * Shape::kStageBytes; }
  __device__ std::byte* values(int count) const { return keys(count) + Shape::kSlabs * Shape::kSlabBytes; }
  __device__ void wait_full(int count) const {
    barrier_wait(full + count % Shape::kStages, count / Shape::kStages & 1);
  }
};

template <int kDim, int kWorkers>
__device__ void copy_context(const GroupPlace& place, const CUtensorMap& cache, const CacheRows& rows,
                             const GroupRing<kDim, kWorkers>& ring) {
  using Shape = GroupShape<kDim, kWorkers>;
  const std::uint64_t policy = keeping_policy();
  for (int block = place.first_block; block < place.end_block; ++block) {
    const int count = block - place.first_block;
    const int row = place.blocks[block] * rows.of_block + place.kv_head * rows.of_head;
    std::uint64_t* full = ring.full + count % Shape::kStages;
    barrier_wait(ring.empty + count % Shape::kStages, (count / Shape::kStages & 1) ^ 1);
    barrier_expect(full, Shape::kStageBytes);
#pragma unroll
    for (int slab = 0; slab < Shape::kSlabs; ++slab) {
      copy_box(ring.keys(count) + slab * Shape::kSlabBytes, cache, full, policy, slab * 64, row);
    }
#pragma unroll
    for (int slab = 0; slab < Shape::kSlabs; ++slab) {
      copy_box(ring.values(count) + slab * Shape::kSlabBytes, cache, full, policy, slab * 64, row + kGroupKeys);
    }
  }
}

__device__ __forceinline__ float power_of_two(float value) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}

/// One warpgroup's 64 queries of a head. A lane holds parts of rows lane / 4 and lane / 4 + 8 of its warp's 16.
template <typename T, int kDim>
struct GroupTile {
  static constexpr int kSteps = kDim / 16;
  static constexpr float kLog2E = 1.4426950F;

  std::uint32_t queries[kSteps][4];
  float scores[kGroupKeys / 2];
  std::uint32_t weights[kGroupKeys / 16][4];
  float sum[kDim / 2];                        // of weighted values
  float largest[2] = {-INFINITY, -INFINITY};  // score
  float total[2] = {0, 0};                    // of this lane's weights
  int lane = static_cast<int>(threadIdx.x) % kWarp;
  int first_query = static_cast<int>(threadIdx.x) % kWarpgroup / kWarp * 16;  // of the tile

  __device__ __forceinline__ void load_queries(const AttentionWork& work, const GroupPlace& place, int head) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = first_query + lane / 4 + half * 8;
      const float* q =
          work.q + (static_cast<std::int64_t>(place.first_row + query) * work.heads + head) * kDim + lane % 4 * 2;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          float2 pair = {0, 0};
          if (query < place.rows) pair = load_fresh(reinterpret_cast<const float2*>(q + step * 16 + part * 8));
          queries[step][part * 2 + half] = operand_word<T>(pair.x, pair.y);
        }
      }
    }
  }

  /// Asks for the scores of a block.
  __device__ __forceinline__ void multiply_keys(const std::byte* keys) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const std::byte* place = keys + step / 4 * (kGroupKeys * 128) + step % 4 * 32;
      WarpgroupRows<T, kGroupKeys, 0>::multiply(scores, queries[step], operand_at(place), step > 0 ? 1 : 0);
    }
  }

  /// Asks for the weighted values of a block to be added.
  __device__ __forceinline__ void multiply_values(const std::byte* values, bool add) {
#pragma unroll
    for (int step = 0; step < kGroupKeys / 16; ++step) {
      WarpgroupRows<T, kDim, 1>::multiply(sum, weights[step], operand_at(values + step * 2048, kGroupKeys * 128),
                                          add || step > 0 ? 1 : 0);
    }
  }

  /// Scale, cap, slope and mask; the factor that is left to do. first_key: the position of the block's first key.
  __device__ __forceinline__ float shape(const AttentionWork& work, const GroupPlace& place, int head, int first_key) {
    float factor = work.scale * kLog2E;
    const bool plain = work.soft_cap == 0 && work.slopes == nullptr;
    const int position = place.position + first_query + lane / 4;
    const int key = first_key + lane % 4 * 2;
    if (!plain) {
      factor = kLog2E;
      const float slope = work.slopes == nullptr ? 0.0F : __ldg(work.slopes + head);
#pragma unroll
      for (int i = 0; i < kGroupKeys / 2; ++i) {
        const int distance = key + i / 4 * 8 + i % 2 - (position + i / 2 % 2 * 8);
        scores[i] = fmaf(slope, static_cast<float>(distance), capped(scores[i] * work.scale, work.soft_cap));
      }
    }
    const int last_position = place.position + kGroupQueries - 1;
    if (first_key + kGroupKeys - 1 > place.position || (work.window != 0 && first_key <= last_position - work.window)) {
#pragma unroll
      for (int i = 0; i < kGroupKeys / 2; ++i) {
        const int distance = position + i / 2 % 2 * 8 - (key + i / 4 * 8 + i % 2);
        if (distance < 0 || (work.window != 0 && distance >= work.window)) scores[i] = -INFINITY;
      }
    }
    return factor;
  }

  /// From scores to weights, relative to the largest score so far; earlier sums follow.
  __device__ __forceinline__ void weigh(float factor, bool first) {
    float rescale[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = largest[half];
#pragma unroll
      for (int j = 0; j < kGroupKeys / 8; ++j) {
        most = fmaxf(most, fmaxf(scores[j * 4 + half * 2], scores[j * 4 + half * 2 + 1]));
      }
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
      const float origin = most == -INFINITY ? 0.0F : most * factor;  // nothing seen yet: all weights are zero
      rescale[half] = power_of_two(fmaf(largest[half], factor, -origin));
      largest[half] = most;
      float added = 0;
#pragma unroll
      for (int j = 0; j < kGroupKeys / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& score = scores[j * 4 + half * 2 + i];
          score = power_of_two(fmaf(score, factor, -origin));
          added += score;
        }
      }
      total[half] = fmaf(total[half], rescale[half], added);
    }
    if (!first && __any_sync(kAllLanes, rescale[0] != 1.0F || rescale[1] != 1.0F)) {
#pragma unroll
      for (int i = 0; i < kDim / 2; ++i) sum[i] *= rescale[i / 2 % 2];
    }
    // The fragment of a sum is, narrowed, that of an operand: columns 0-7 from one, 8-15 from the next.
#pragma unroll
    for (int step = 0; step < kGroupKeys / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int from = step * 8 + i / 2 * 4 + i % 2 * 2;
        weights[step][i] = operand_word<T>(scores[from], scores[from + 1]);
        asm volatile("" : "+r"(weights[step][i])::"memory");  // now, not between the products
      }
    }
  }

  __device__ __forceinline__ void write(const AttentionWork& work, const GroupPlace& place, int head) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[half] += __shfl_xor_sync(kAllLanes, total[half], 1);
      total[half] += __shfl_xor_sync(kAllLanes, total[half], 2);
      const int query = first_query + lane / 4 + half * 8;
      if (query >= place.rows) continue;
      const float inverse = 1.0F / total[half];
      const std::int64_t first =
          (static_cast<std::int64_t>(place.first_row + query) * work.heads + head) * kDim + lane % 4 * 2;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        store_operand_pair(work.out_format, work.out, first + d * 8, sum[d * 4 + half * 2] * inverse,
                           sum[d * 4 + half * 2 + 1] * inverse);
      }
    }
  }
};

/// Values of tokens that do not exist become zeros, for all warpgroups.
template <int kDim, int kWorkers>
__device__ __forceinline__ void clear_values(std::byte* values, int tokens) {
  using Shape = GroupShape<kDim, kWorkers>;
  constexpr int kRowVectors = 8;  // of 16 bytes
  for (int i = tokens * kRowVectors + static_cast<int>(threadIdx.x); i < kGroupKeys * kRowVectors;
       i += kWorkers * kWarpgroup) {
#pragma unroll
    for (int slab = 0; slab < Shape::kSlabs; ++slab) {
      *reinterpret_cast<uint4*>(values + slab * Shape::kSlabBytes + i * 16) = make_uint4(0, 0, 0, 0);
    }
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  named_barrier(1, kWorkers * kWarpgroup);
}

template <typename T, int kDim, int kWorkers>
__device__ void attend_context(const AttentionWork& work, const GroupPlace& place,
                               const GroupRing<kDim, kWorkers>& ring) {
  using Shape = GroupShape<kDim, kWorkers>;
  const int worker = static_cast<int>(threadIdx.x) / kWarpgroup;
  const bool exists = worker < place.heads;  // else it only keeps the barriers company
  const int head = place.first_head + (exists ? worker : 0);
  // The same in all lanes, as the compiler has to see: products in a divergent path would be made one by one.
  const int blocks = __shfl_sync(kAllLanes, place.end_block - place.first_block, 0);
  GroupTile<T, kDim> tile;
  tile.load_queries(work, place, head);
  const auto weigh = [&](int i) {
    const int first_key = (place.first_block + i) * kGroupKeys;
    if (first_key + kGroupKeys > place.tokens) {
      clear_values<kDim, kWorkers>(ring.values(i), place.tokens - first_key);
    }
    tile.weigh(tile.shape(work, place, head, first_key), i == 0);
  };
  const auto release = [&](int i) {
    if (threadIdx.x % kWarp == 0) barrier_arrive(ring.empty + i % Shape::kStages);
  };
  ring.wait_full(0);
  products_begin();
  tile.multiply_keys(ring.keys(0));
  products_commit();
  products_wait<0>();
  for (int i = 0; i + 1 < blocks; ++i) {
    weigh(i);
    ring.wait_full(i + 1);
    products_begin();
    tile.multiply_values(ring.values(i), i > 0);
    tile.multiply_keys(ring.keys(i + 1));
    products_commit();
    products_wait<0>();
    release(i);
  }
  weigh(blocks - 1);
  products_begin();
  tile.multiply_values(ring.values(blocks - 1), blocks > 1);
  products_commit();
  products_wait<0>();
  if (exists) tile.write(work, place, head);
}

/// Grid: (tiles, KV heads * groups of kWorkers of their query heads).
template <typename T, int kDim, int kWorkers>
__global__ void __launch_bounds__(GroupShape<kDim, kWorkers>::kThreads, GroupShape<kDim, kWorkers>::kBlocks)
    attend_group(const __grid_constant__ AttentionWork work, const PrefillTile* tiles,
                 const __grid_constant__ CUtensorMap cache, const __grid_constant__ CacheRows rows) {
#if LANNER_WARPGROUPS
  using Shape = GroupShape<kDim, kWorkers>;
  extern __shared__ std::byte shared[];
  const GroupRing<kDim, kWorkers> ring(shared);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shape::kStages; ++i) {
      barrier_init(ring.full + i, 1);
      barrier_init(ring.empty + i, kWorkers * kWarpgroup / kWarp);
    }
    barrier_fence();
  }
  __syncthreads();
  wait_for_previous();
  let_next_start();
  GroupPlace place;
  if (!find_group_place(work, tiles, kWorkers, &place)) return;
  if (threadIdx.x < kWorkers * kWarpgroup) {
    take_registers<Shape::kRegisters>();
    attend_context<T, kDim, kWorkers>(work, place, ring);
  } else {
    give_registers<Shape::kCopyRegisters>();
    if (threadIdx.x == kWorkers * kWarpgroup) copy_context<kDim, kWorkers>(place, cache, rows, ring);
  }
#endif
}

template <typename T, int kDim, int kWorkers>
cudaError_t launch_group(const KernelContext& context, const GroupLaunch& args) {
  const std::int64_t groups = ceil_div(args.work.heads / args.work.kv_heads, kWorkers);
  const dim3 grid(static_cast<unsigned>(args.count), static_cast<unsigned>(args.work.kv_heads * groups));
  using Shape = GroupShape<kDim, kWorkers>;
  return launch(context, attend_group<T, kDim, kWorkers>, grid, Shape::kThreads, Shape::kBytes, args.work, args.tiles,
                args.cache, args.rows);
}

template <typename T, int kDim>
cudaError_t launch_group_of_heads(const KernelContext& context, const GroupLaunch& args) {
  return args.work.heads == args.work.kv_heads ? launch_group<T, kDim, 1>(context, args)
                                               : launch_group<T, kDim, 2>(context, args);
}

template <typename T>
cudaError_t launch_group_of_type(const KernelContext& context, const GroupLaunch& args) {
  return with_group_head_dim(args.work.head_dim,
                             [&]<int kDim>() { return launch_group_of_heads<T, kDim>(context, args); });
}

template <typename T, int kDim>
cudaError_t prepare_group() {
  constexpr cudaFuncAttribute kAttribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  LANNER_RETURN_IF_CUDA_ERROR(cudaFuncSetAttribute(attend_group<T, kDim, 1>, kAttribute, GroupShape<kDim, 1>::kBytes));
  return cudaFuncSetAttribute(attend_group<T, kDim, 2>, kAttribute, GroupShape<kDim, 2>::kBytes);
}

template <typename T>
cudaError_t prepare_group_of_type() {
  for (const std::int64_t head_dim : kGroupHeadDims) {
    LANNER_RETURN_IF_CUDA_ERROR(with_group_head_dim(head_dim, [&]<int kDim>() { return prepare_group<T, kDim>(); }));
  }
  return cudaSuccess;
}

}  // namespace lanner::ops::cuda
