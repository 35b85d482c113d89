// The door of the kernels with rings: which launches they take, and how those are cut.

#include "ops/cuda/ring_linear.h"

#include <algorithm>

#include "ops/cuda/device.cuh"
#include "ops/cuda/ring_room.cuh"

namespace lanner::ops::cuda {
namespace {

constexpr std::int64_t kLongRow = 8;      // pieces: from here on a group is at least as many warps
constexpr std::int64_t kReserved = 1024;  // bytes of shared memory that the device keeps of every block

/// Stages that the busiest warp empties, if `splits` warps are a group.
std::int64_t work_of(std::int64_t pairs, std::int64_t pieces, std::int64_t warps, std::int64_t splits) {
  return ceil_div(pairs, warps / splits) * ceil_div(pieces, splits);
}

}  // namespace

// Small blocks, one a multiprocessor, where there is not even one and a half stages for each warp of two large ones:
// everything a warp has is then asked for at once. Else rings of half of a warp's work, and of two stages at most: a
// kernel with deeper ones is faster alone, but in a step it leaves the next one no room. (NVIDIA H200, shape of
// InternLM2-1.8B, measured on whole steps.)
RingCut cut_ring(const KernelContext& context, const FusedLinear& args) {
  const std::int32_t row_vectors = args.cols / kRingElements;
  const std::int64_t pieces = ceil_div(row_vectors, kRingSpan);
  const std::int64_t rows = args.rows <= 1 ? 1 : kRingRows;
  RingCut cut;
  cut.full = 2LL * args.pairs * pieces >= 3LL * kRingBlocks<true> * kRingWarps<true> * context.multiprocessors;
  const std::int64_t warps = cut.full ? kRingWarps<true> : kRingWarps<false>;
  const std::int64_t most_blocks = (cut.full ? 2LL : 1LL) * context.multiprocessors;
  // More warps a group where that saves an eighth of the busiest one's work: every pair is added up over them. Of long
  // rows at least as many as read 8 KB side by side.
  std::int64_t splits = pieces > kLongRow ? std::min(kLongRow, warps) : 1;
  for (std::int64_t more = 2 * splits; more <= std::min(warps, pieces); more *= 2) {
    if (8 * work_of(args.pairs, pieces, warps * most_blocks, more) <
        7 * work_of(args.pairs, pieces, warps * most_blocks, splits)) {
      splits = more;
    }
  }
  const std::int64_t work = work_of(args.pairs, pieces, warps * most_blocks, splits);
  std::int64_t stages = cut.full ? std::clamp<std::int64_t>(work / 2, 1, kRingStages<true>)
                                 : std::min<std::int64_t>(work, kRingStages<false>);
  const std::int64_t budget = (context.shared_bytes - kReserved) / 2;  // room for two, of this kernel or the next
  while (stages > 1 && ring_bytes(rows, cut.full, stages, row_vectors) > budget) --stages;
  cut.fits = ring_bytes(rows, cut.full, stages, row_vectors) <= budget;
  cut.splits = static_cast<std::int32_t>(splits);
  cut.stages = static_cast<std::int32_t>(stages);
  cut.blocks = static_cast<std::int32_t>(std::min<std::int64_t>(most_blocks, args.pairs));
  return cut;
}

bool takes_ring(const KernelContext& context, WeightFormat format, const FusedLinear& args) {
  const bool plain = args.input_order == nullptr && (args.norm.gain == nullptr || args.norm.kind == NormKind::kRms);
  return context.dependent_launch && !context.deterministic && is_half(format) && args.rows <= kRingRows &&
         args.cols % kRingElements == 0 && plain && cut_ring(context, args).fits;
}

cudaError_t run_ring_linear(const KernelContext& context, WeightFormat format, const FusedLinear& args) {
  return format == WeightFormat::kF16 ? run_ring_float16(context, args) : run_ring_bfloat16(context, args);
}

cudaError_t prepare_ring_linear(int shared_bytes) {
  LANNER_RETURN_IF_CUDA_ERROR(prepare_ring_float16(shared_bytes));
  return prepare_ring_bfloat16(shared_bytes);
}

}  // namespace lanner::ops::cuda
