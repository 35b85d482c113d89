#pragma once
// What this machine can do at most: read bandwidth and arithmetic peaks, measured here and now.
//
// A speed means something only beside the limit it runs against. Decoding one token reads every weight once, so its
// limit is the bandwidth; a long prompt is bound by multiplications. measure_roofline() takes well under a second, uses
// all threads that the engine would, and reports the best of several short runs: a limit, not an average. On a shared
// machine it drifts, so measure it in the same run as what is compared with it.

#include <cstdint>

#include "core/cpu_info.h"
#include "lanner/status.h"

namespace lanner::eval {

struct RooflineOptions {
  int threads = 0;                  // 0: available_processors()
  CpuIsa isa = selected_cpu_isa();  // not above detected_cpu_isa()
  bool pin_threads = false;         // as the engine's
  std::int64_t buffer_bytes = 0;    // for reading; 0: 4 times the last-level cache, 64 MiB to 1 GiB
};

/// All threads together. An operation is one multiplication or one addition.
struct Roofline {
  int threads = 0;
  std::int64_t buffer_bytes = 0;
  double read_bytes_per_s = 0;
  double float32_ops_per_s = 0;  // fused multiply-add where the set has it
  double int8_ops_per_s = 0;     // unsigned times signed byte into int32: tiles, VNNI, or the nearest that the set has
};

/// kInvalidArgument for a set that this processor lacks; kResourceExhausted without memory for the buffer.
Result<Roofline> measure_roofline(const RooflineOptions& options);

}  // namespace lanner::eval
