#include "ops/cpu/strip_products.h"

#include <algorithm>
#include <cstddef>

#include "core/check.h"
#include "ops/cpu/kernels.h"

namespace lanner::ops {
namespace {

static_assert(kStripColumns == 2 * cpu::kPanelRows);

/// A tile (rows, count) of what was multiplied into the place of it.
void put(const float* tile, std::int64_t rows, std::int64_t tile_stride, StripTarget target, float* to) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* from = tile + r * tile_stride;
    float* place = to + r * cpu::kPanelRows;
    switch (target) {
      case StripTarget::kSet: std::copy_n(from, cpu::kPanelRows, place); break;
      case StripTarget::kAdd:
        for (std::int64_t i = 0; i < cpu::kPanelRows; ++i) place[i] += from[i];
        break;
      case StripTarget::kSubtract:
        for (std::int64_t i = 0; i < cpu::kPanelRows; ++i) place[i] -= from[i];
        break;
    }
  }
}

}  // namespace

void multiply_strip(const StripProduct& product, CpuIsa isa) {
  LANNER_CHECK(product.depth > 0 && product.right_row + product.depth <= product.right.rows);
  LANNER_CHECK(product.to_row + product.rows <= product.to.rows);
  const cpu::Kernels& kernels = cpu::kernels_for(isa);
  const float* right = product.right.data + product.right_row * cpu::kPanelRows;
  const auto panel_bytes =
      static_cast<std::int64_t>(sizeof(float)) * product.right.rows * cpu::kPanelRows;  // of a strip's half
  const cpu::WeightView weight{.format = WeightFormat::kF32,
                               .data = reinterpret_cast<const std::byte*>(right),
                               .panel_bytes = panel_bytes,
                               .cols = product.depth};
  const cpu::InputView input{.values = product.left};
  const std::int64_t panels = std::min<std::int64_t>(kernels.tile_panels, 2);
  const std::int64_t tile_rows = std::min(kernels.tile_rows, cpu::kMaxTileRows);
  alignas(64) float tile[cpu::kMaxTileRows * kStripColumns];
  for (std::int64_t row = 0; row < product.rows; row += tile_rows) {
    const std::int64_t rows = std::min(tile_rows, product.rows - row);
    for (std::int64_t first = 0; first < 2; first += panels) {
      kernels.multiply(weight, first, panels, input, row, rows, tile);
      for (std::int64_t panel = first; panel < first + panels; ++panel) {
        float* place = product.to.data + (panel * product.to.rows + product.to_row + row) * cpu::kPanelRows;
        put(tile + (panel - first) * cpu::kPanelRows, rows, panels * cpu::kPanelRows, product.target, place);
      }
    }
  }
}

}  // namespace lanner::ops
