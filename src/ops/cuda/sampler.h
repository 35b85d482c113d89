#pragma once
// The host's side of sampling on the device: what sampling.h reads and where it writes.
//
// A sampling of greedy rows uploads nothing; any other one list, in one transfer. Tokens come back through pinned
// memory that the kernels write; an event says when.

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
  /// Whether the device can; the others belong to the host.
  static bool takes(const SampleRow& row);
  /// The tokens of the last sampling by its rows, in device memory; the place is the same for good.
  const std::int32_t* sampled() const { return sampled_.as<const std::int32_t>(); }

  /// Puts the rows that takes() accepts to work and leaves the others alone.
  void start(const KernelContext& context, std::span<const SampleRow> rows);
  /// Waits for the oldest start() that was not collected, or for the newest. What they say of rows that were left alone
  /// means nothing.
  void collect(std::span<SampledToken> tokens);
  void collect_newest(std::span<SampledToken> tokens);
  /// Waits for the newest start() and looks: what sampled_token(row) stands for.
  std::int32_t newest_token(std::int32_t row) const;

 private:
  struct Slot {
    PinnedBuffer results;  // (kMaxRows) int2
    DeviceEvent done;
  };
  const Slot& slot(int back) const { return slots_[(next_ - back + kMostUncollected) % kMostUncollected]; }
  static void wait_and_read(const Slot& slot, std::span<SampledToken> tokens);
  void describe(std::span<const SampleRow> rows, cudaStream_t stream, SamplingCall* call);

  DeviceBuffer sampled_;  // (kMaxRows)
  DeviceBuffer scans_;    // (rows, chunks) ScanResult
  Slot slots_[kMostUncollected];
  int next_ = 0;       // the slot that the next start() takes
  int under_way_ = 0;  // starts that were not collected
  MirroredBuffer upload_;
  std::vector<SamplingTask> tasks_;
  std::vector<std::int32_t> ints_;
  std::vector<std::int32_t> edited_;
};

}  // namespace lanner::ops::cuda
