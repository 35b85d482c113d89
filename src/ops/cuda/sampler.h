#pragma once
// The host's side of sampling on the device: what sampling.h reads and where it writes.
//
// A sampling of greedy rows uploads nothing; any other one list, in one transfer. Tokens come back through pinned
// memory that the kernels write; an event says when. reserve() takes the memory for the largest sampling; only lists
// and log-probabilities beyond all measure take more when they come.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>
#include <vector>

#include "lanner/status.h"
#include "ops/backend.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/sampling.h"
#include "ops/cuda/step_upload.h"

namespace lanner::ops::cuda {

class Sampler {
 public:
  static constexpr std::int64_t kMaxRows = 8192;  // of one sampling

  Status set_up();
  Status reserve(const StepRoom& room);
  static std::int64_t reserve_bytes(const StepRoom& room);
  /// The tokens of the last sampling by its rows, in device memory; the place is the same for good.
  const std::int32_t* sampled() const { return sampled_.as<const std::int32_t>(); }

  /// Puts the sampling of the rows on the context's stream. With a failure it has not begun.
  Status start(const KernelContext& context, std::span<const SampleRow> rows);
  /// Waits for the oldest start() that was not collected. With a failure the tokens are not touched.
  Status collect(std::span<SampledToken> tokens);

 private:
  /// Where a row's log-probabilities are among a slot's reports: the sampled token's, then `best` more.
  struct Report {
    std::int32_t row;
    std::int32_t first;
    std::int32_t best;
  };
  struct Slot {
    PinnedBuffer results;  // (kMaxRows) int2
    PinnedBuffer reports;  // TokenReport
    std::vector<Report> reported;
    DeviceEvent done;
  };
  Status describe(std::span<const SampleRow> rows, cudaStream_t stream, Slot& slot, SamplingCall* call);
  Status give_room(std::span<const SampleRow> rows, Slot& slot, SamplingCall* call);
  Status upload(cudaStream_t stream, SamplingCall* call);

  DeviceBuffer sampled_;  // (kMaxRows)
  DeviceBuffer scans_;    // (rows, chunks) ScanResult
  DeviceBuffer raw_;      // (rows that are edited and want log-probabilities, vocab)
  Slot slots_[kMostUncollected];
  int next_ = 0;       // the slot that the next start() takes
  int under_way_ = 0;  // starts that were not collected
  MirroredBuffer upload_;
  std::vector<SamplingTask> tasks_;
  std::vector<std::int32_t> ints_;
  std::vector<std::int32_t> edited_;    // rows
  std::vector<std::int32_t> reported_;  // rows
};

}  // namespace lanner::ops::cuda
