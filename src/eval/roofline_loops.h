#pragma once
// The loops that roofline.cpp times, one table for each instruction set. They return something that depends on all they
// did, so that no compiler can leave them out.

#include <cstddef>
#include <cstdint>

namespace lanner::eval {

inline constexpr std::int64_t kReadStep = 4 * 64;  // bytes; both ways to read take multiples

struct RooflineLoops {
  /// Independent chains of fused multiply-adds in registers.
  float (*float32)(std::int64_t rounds);
  std::int64_t float32_ops_per_round;
  /// The same with dot products of bytes.
  std::int32_t (*int8)(std::int64_t rounds);
  std::int64_t int8_ops_per_round;
  /// Reads `bytes` as four streams side by side, each prefetched 4 KiB ahead.
  std::uint64_t (*read)(const std::byte* data, std::int64_t bytes);
  /// Reads them from the beginning to the end. Which of the two is faster depends on the processor.
  std::uint64_t (*read_stream)(const std::byte* data, std::int64_t bytes);
};

const RooflineLoops& generic_roofline_loops();
const RooflineLoops& avx2_roofline_loops();
const RooflineLoops& avx512_roofline_loops();
const RooflineLoops& amx_roofline_loops();

}  // namespace lanner::eval
