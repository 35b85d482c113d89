// Peak loops for AMX: its tiles for int8, AVX-512 for the rest. Four sums cover a tile product's latency.

#include "eval/roofline_loops.h"

#if defined(__x86_64__)

namespace lanner::eval {
namespace {

constexpr std::int64_t kProducts = 4;                   // of a round
constexpr std::int64_t kProductOps = 2 * 16 * 16 * 64;  // of tiles of 16 x 64 bytes

struct alignas(64) Configuration {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
};

std::int32_t int8(std::int64_t rounds) {
  // The thread may have a configuration of somebody else's already.
  Configuration before;
  asm volatile("sttilecfg %0" : "=m"(before));
  static constexpr Configuration kConfiguration{};
  asm volatile("ldtilecfg %0" : : "m"(kConfiguration));
  alignas(64) std::int32_t sums[16][16];
  for (auto& row : sums) {
    for (std::int32_t& value : row) value = 0x01010101;
  }
  const std::int64_t stride = sizeof(sums[0]);
  asm volatile(
      "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3\n\t"
      "tileloadd (%0,%1,1), %%tmm4\n\ttileloadd (%0,%1,1), %%tmm5"
      :
      : "r"(sums), "r"(stride)
      : "memory");
  for (std::int64_t round = 0; round < rounds; ++round) {
    asm volatile(
        "tdpbsud %tmm5, %tmm4, %tmm0\n\ttdpbsud %tmm5, %tmm4, %tmm1\n\t"
        "tdpbsud %tmm5, %tmm4, %tmm2\n\ttdpbsud %tmm5, %tmm4, %tmm3");
  }
  asm volatile("tilestored %%tmm0, (%0,%1,1)" : : "r"(sums), "r"(stride) : "memory");
  asm volatile("ldtilecfg %0" : : "m"(before));
  return sums[3][5];
}

RooflineLoops with_tiles(RooflineLoops loops) {
  loops.int8 = int8;
  loops.int8_ops_per_round = kProducts * kProductOps;
  return loops;
}

}  // namespace

const RooflineLoops& amx_roofline_loops() {
  static const RooflineLoops kLoops = with_tiles(avx512_roofline_loops());
  return kLoops;
}

}  // namespace lanner::eval

#else

namespace lanner::eval {
const RooflineLoops& amx_roofline_loops() { return generic_roofline_loops(); }
}  // namespace lanner::eval

#endif
