// Products of bf16 with tiles of AMX, or with what stands for them in prompt_in_memory.cpp; see prompt.h.
//
// Four tiles of sums, two of the left side, two of the right: 32 rows by 32 columns.

// No include guard: it is included once by prompt_amx.cpp and once by prompt_in_memory.cpp.

#include "ops/cpu/prompt.inl.h"

namespace lanner::ops::cpu::LANNER_ISA {

template <typename Tiles, bool kTwoRows, bool kTwoColumns>
static void multiply_tiles_of(const BFloat16Product& p, std::int64_t row, std::int64_t column) {
  const std::int64_t c_bytes = p.c_stride * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t a_bytes = p.a_stride * static_cast<std::int64_t>(sizeof(std::uint16_t));
  float* c = p.c + row * p.c_stride + column;
  float* c_below = c + 16 * p.c_stride;
  const std::uint16_t* a = p.a + row * p.a_stride;
  const std::uint16_t* b = p.b + column / kTileColumns * p.b_stride;
  Tiles::before_loads();
  if (p.add) {
    Tiles::template load<0>(c, c_bytes);
    if constexpr (kTwoColumns) Tiles::template load<1>(c + 16, c_bytes);
    if constexpr (kTwoRows) Tiles::template load<2>(c_below, c_bytes);
    if constexpr (kTwoRows && kTwoColumns) Tiles::template load<3>(c_below + 16, c_bytes);
  } else {
    Tiles::template zero<0>();
    if constexpr (kTwoColumns) Tiles::template zero<1>();
    if constexpr (kTwoRows) Tiles::template zero<2>();
    if constexpr (kTwoRows && kTwoColumns) Tiles::template zero<3>();
  }
  for (std::int64_t k = 0; k < p.depth; k += kPromptDepth) {
    Tiles::template load<4>(a + k, a_bytes);
    if constexpr (kTwoRows) Tiles::template load<5>(a + 16 * p.a_stride + k, a_bytes);
    Tiles::template load<6>(b + k * kTileColumns, 64);
    if constexpr (kTwoColumns) Tiles::template load<7>(b + p.b_stride + k * kTileColumns, 64);
    Tiles::template multiply_bf16<0, 4, 6>();
    if constexpr (kTwoColumns) Tiles::template multiply_bf16<1, 4, 7>();
    if constexpr (kTwoRows) Tiles::template multiply_bf16<2, 5, 6>();
    if constexpr (kTwoRows && kTwoColumns) Tiles::template multiply_bf16<3, 5, 7>();
  }
  Tiles::template store<0>(c, c_bytes);
  if constexpr (kTwoColumns) Tiles::template store<1>(c + 16, c_bytes);
  if constexpr (kTwoRows) Tiles::template store<2>(c_below, c_bytes);
  if constexpr (kTwoRows && kTwoColumns) Tiles::template store<3>(c_below + 16, c_bytes);
}

template <typename Tiles>
static void configure_tiles() {
  Tiles::configure();
}

template <typename Tiles>
static void multiply_by_tiles(const BFloat16Product& p) {
  for (std::int64_t column = 0; column < p.columns; column += 32) {
    const bool two_columns = column + 32 <= p.columns;
    for (std::int64_t row = 0; row < p.rows; row += 32) {
      if (row + 32 <= p.rows) {
        two_columns ? multiply_tiles_of<Tiles, true, true>(p, row, column)
                    : multiply_tiles_of<Tiles, true, false>(p, row, column);
      } else {
        two_columns ? multiply_tiles_of<Tiles, false, true>(p, row, column)
                    : multiply_tiles_of<Tiles, false, false>(p, row, column);
      }
    }
  }
}

}  // namespace lanner::ops::cpu::LANNER_ISA
