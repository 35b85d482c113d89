// The arithmetic around AMX's tiles, on any processor that has AVX-512: tiles in plain C++ take the place of the
// processor's, and every bit must be as AVX-512 computes it. ops_test with LANNER_CPU_ISA=amx tests the instructions.
// Those of bf16 are tested with LANNER_TEST_DEVICE=cpu-tiles, all operations against the reference; here is that tiles
// in memory are as the processor's, where it has some.

#include <gtest/gtest.h>

#include <vector>

#include "core/thread_pool.h"
#include "ops/cpu/amx_in_memory.h"
#include "ops/cpu/pack.h"
#include "ops/ops_test_support.h"

namespace lanner::ops::testing {
namespace {

void compare(const WeightKind& kind, std::int64_t cols, Random& random) {
  constexpr std::int64_t kInputRows = 41;
  constexpr std::int64_t kOuts = 70;  // five panels, the last one ragged
  const cpu::Kernels& kernels = cpu::avx512::kernels();
  const auto pool = std::move(*ThreadPool::create(1));
  cpu::WeightRoom room;
  const auto weight = *cpu::pack_weight(random_weight(kind, kOuts, cols, random), Arithmetic::kFast, *pool, room);
  const std::vector<float> x = random.vector(kInputRows * cols, -2.0F, 2.0F);
  std::vector<std::int8_t> codes(static_cast<std::size_t>((kInputRows + 16) * cpu::code_stride(cols)), 77);
  std::vector<cpu::ActivationGroup> groups(static_cast<std::size_t>(kInputRows * cols / 32));
  for (std::int64_t row = 0; row < kInputRows; ++row) {
    kernels.quantize(x.data() + row * cols, cols, codes.data() + row * cpu::code_stride(cols),
                     groups.data() + row * cols / 32);
  }
  const cpu::InputView input{.values = x.data(), .codes = codes.data(), .groups = groups.data()};
  for (const std::int64_t panels : {1, 2}) {
    for (const std::int64_t rows : {1, 6, 15, 16, 17, 31, 32}) {
      SCOPED_TRACE(::testing::Message() << panels << " panels, " << rows << " rows");
      const std::int64_t panel = 5 - panels;
      const std::int64_t row = kInputRows - rows;
      std::vector<float> tiles(static_cast<std::size_t>(rows * panels * 16), -1.0F);
      cpu::amx_in_memory::multiply(weight->view(), panel, panels, input, row, rows, tiles.data());
      std::vector<float> one(static_cast<std::size_t>(panels * 16));
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t p = 0; p < panels; ++p) {
          kernels.multiply(weight->view(), panel + p, 1, input, row + r, 1, one.data() + p * 16);
        }
        expect_same_bits(std::span(tiles).subspan(static_cast<std::size_t>(r * panels * 16), one.size()), one);
      }
    }
  }
}

TEST(AmxTiles, GiveTheBitsOfAvx512) {
  if (detected_cpu_isa() < CpuIsa::kAvx512) GTEST_SKIP() << "this processor lacks AVX-512";
  Random random(77);
  for (const std::int64_t group : {32, 64, 96}) {
    for (const WeightKind& kind : quantized_kinds(group)) {
      for (const std::int64_t cols : {96, 192, 576}) {
        if (cols % group != 0 || ::testing::Test::HasFatalFailure()) continue;
        SCOPED_TRACE(::testing::Message() << kind.name() << ", " << cols << " columns");
        compare(kind, cols, random);
      }
    }
  }
}

/// bf16 numbers of many sizes, subnormal ones and zeros among them.
std::vector<std::uint16_t> random_tiles(std::int64_t count, Random& random) {
  std::vector<std::uint16_t> numbers;
  for (std::int64_t i = 0; i < count * cpu::kBf16TileElements; ++i) {
    const auto sign = static_cast<std::uint16_t>(random.below(2) << 15);
    const std::int64_t exponent = random.below(8) == 0 ? random.below(3) : 120 + random.below(12);
    numbers.push_back(static_cast<std::uint16_t>(sign | exponent << 7 | random.below(128)));
  }
  return numbers;
}

TEST(AmxTiles, OfBf16InMemoryGiveTheBitsOfTheProcessors) {
  if (detected_cpu_isa() < CpuIsa::kAmx) GTEST_SKIP() << "this processor lacks AMX";
  Random random(78);
  constexpr std::int64_t kTiles = 5;
  const std::vector<std::uint16_t> input = random_tiles(2 * kTiles, random);
  const std::vector<std::uint16_t> panels = random_tiles(2 * kTiles, random);
  for (int shape = 0; shape < 8; ++shape) {
    std::vector<float> expected = random.vector(32 * 32);
    std::vector<float> actual = expected;
    cpu::TileCall call{.input = input.data(), .panel = panels.data(), .tiles = kTiles, .adds = (shape & 4) != 0};
    if ((shape & 1) != 0) call.input_below = input.data() + kTiles * cpu::kBf16TileElements;
    if ((shape & 2) != 0) call.panel_beside = panels.data() + kTiles * cpu::kBf16TileElements;
    call.sums = expected.data();
    cpu::amx_in_memory::tile_kernels().multiply(call);
    call.sums = actual.data();
    const cpu::TileKernels& tiles = *cpu::amx::kernels().tiles;
    tiles.configure();
    tiles.multiply(call);
    expect_same_bits(actual, expected);
  }
}

}  // namespace
}  // namespace lanner::ops::testing
