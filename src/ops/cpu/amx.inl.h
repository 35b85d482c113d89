// Products of quantized weights with tiles of AMX (or with what stands for them in amx_in_memory.cpp): the same
// integers as those of AVX-512, put together by the same operations in the same order, so that a row has the same bits
// whichever of the two computed it.
//
// A tile instruction multiplies 16 rows' codes of 32 columns by a panel's: a unit of a panel is a tile as it lies in
// memory (int8) or unpacked (int4). High and low codes go into sums of their own, for two panels: four tiles of
// sums, two of input, two of weights. Since each unit has its own scales, the sums leave the tiles after every unit;
// while the tiles take the next one, the vector unit puts the last one together.

// No include guard: it is included once by kernels_amx.cpp and once by amx_in_memory.cpp.

#include "ops/cpu/codes.inl.h"

namespace lanner::ops::cpu::LANNER_ISA {

inline constexpr std::int64_t kAmxRows = 16;  // input rows of a tile

/// Sums of a unit: for each panel high and low, 16 input rows x 16 weight rows.
struct UnitSums {
  alignas(64) std::int32_t high[2][kAmxRows][kPanelRows];
  alignas(64) std::int32_t low[2][kAmxRows][kPanelRows];
};

/// Codes of a unit of both panels as tiles: 8 x 64 bytes each.
struct UnitTiles {
  alignas(64) std::uint8_t bytes[2][8][64];
};

/// What a call computes: panels [panel, panel + kPanels) by input rows [row, row + rows).
template <typename Tiles, typename Unit, typename Scales, bool kOffsets, int kPanels>
class TileProduct {
 public:
  TileProduct(const WeightView& weight, std::int64_t panel, const InputView& input, std::int64_t row, std::int64_t rows,
              float* tile)
      : layout_(Layout::of(weight)),
        weight_(weight),
        input_(input),
        panels_(weight.data + panel * weight.panel_bytes),
        row_(row),
        rows_(rows),
        tile_(tile) {}

  void run() {
    for (std::int64_t i = 0; i < rows_ * kPanels; ++i) store(tile_ + i * kPanelRows, zero());
    const std::int64_t units = layout_.groups * layout_.units;
    std::int64_t last_unit = -1;
    std::int64_t last_first = 0;
    int turn = 0;
    for (std::int64_t unit = 0; unit < units; ++unit) {
      const std::uint8_t* codes[kPanels];
      unpack(unit, codes);
      for (std::int64_t first = 0; first < rows_; first += kAmxRows, turn ^= 1) {
        multiply(unit, first, codes, sums_[turn]);
        if (last_unit >= 0) add_sums(last_unit, last_first, sums_[turn ^ 1]);
        last_unit = unit;
        last_first = first;
      }
    }
    add_sums(last_unit, last_first, sums_[turn ^ 1]);
  }

 private:
  using Layout = CodeLayout<Unit, kActivationGroup, Scales, kOffsets>;

  const std::byte* place(int panel, std::int64_t unit) const {
    return panels_ + panel * weight_.panel_bytes + unit / layout_.units * layout_.group_bytes +
           unit % layout_.units * Unit::kBytes;
  }
  const std::byte* scales(int panel, std::int64_t unit) const {
    return panels_ + panel * weight_.panel_bytes + unit / layout_.units * layout_.group_bytes +
           layout_.units * Unit::kBytes;
  }

  /// Where the unit's tiles of weights are.
  void unpack(std::int64_t unit, const std::uint8_t** codes) {
    for (int p = 0; p < kPanels; ++p) {
      const std::byte* here = place(p, unit);
      const std::int64_t at = here - (panels_ + p * weight_.panel_bytes);
      prefetch_ahead(panels_ + p * weight_.panel_bytes, at, Unit::kBytes + Layout::kMetaBytes, weight_.panel_bytes,
                     kPanels * weight_.panel_bytes);
      if constexpr (Unit::kBytes == sizeof(codes_.bytes[0])) {
        codes[p] = reinterpret_cast<const std::uint8_t*>(here);
      } else {
        const Unit unpacked = Unit::unpack(here);
        for (int step = 0; step < Unit::kSteps; ++step) store_codes(codes_.bytes[p][step], unpacked.codes[step]);
        codes[p] = codes_.bytes[p][0];
      }
    }
  }

  void multiply(std::int64_t unit, std::int64_t first, const std::uint8_t* const* codes, UnitSums& sums) const {
    const std::int64_t stride = code_stride(weight_.cols);
    const std::int8_t* high = input_.codes + (row_ + first) * stride + unit * 2 * kActivationGroup;
    Tiles::before_loads();
    Tiles::template zero<0>();
    Tiles::template zero<1>();
    Tiles::template load<4>(high, stride);
    Tiles::template load<5>(high + kActivationGroup, stride);
    Tiles::template load<6>(codes[0], 64);
    Tiles::template multiply<0, 4, 6>();
    Tiles::template multiply<1, 5, 6>();
    if constexpr (kPanels == 2) {
      Tiles::template zero<2>();
      Tiles::template zero<3>();
      Tiles::template load<7>(codes[1], 64);
      Tiles::template multiply<2, 4, 7>();
      Tiles::template multiply<3, 5, 7>();
    }
    Tiles::template store<0>(sums.high[0], 64);
    Tiles::template store<1>(sums.low[0], 64);
    if constexpr (kPanels == 2) {
      Tiles::template store<2>(sums.high[1], 64);
      Tiles::template store<3>(sums.low[1], 64);
    }
  }

  void add_sums(std::int64_t unit, std::int64_t first, const UnitSums& sums) const {
    F32x16 scale[kPanels];
    F32x16 offset[kPanels];
    for (int p = 0; p < kPanels; ++p) {
      scale[p] = Scales::load16(scales(p, unit));
      if constexpr (kOffsets) offset[p] = Scales::offset16(scales(p, unit), scale[p]);
    }
    const std::int64_t here = rows_ - first < kAmxRows ? rows_ - first : kAmxRows;
    for (std::int64_t r = 0; r < here; ++r) {
      const auto x = UnitInput<kActivationGroup>::at(input_, weight_.cols, row_ + first + r, unit);
      float* out = tile_ + (first + r) * kPanels * kPanelRows;
      for (int p = 0; p < kPanels; ++p) {
        const I32x16 low = add_int(load_int(sums.low[p][r]), Unit::start(x.sum_of_codes));
        const I32x16 dot = add_int(times_low_steps(load_int(sums.high[p][r])), low);
        F32x16 sum = fma(to_float(dot), mul(scale[p], x.scale), load(out + p * kPanelRows));
        if constexpr (kOffsets) sum = fma(offset[p], x.sum, sum);
        store(out + p * kPanelRows, sum);
      }
    }
  }

  const Layout layout_;
  const WeightView& weight_;
  const InputView& input_;
  const std::byte* panels_;
  const std::int64_t row_;
  const std::int64_t rows_;
  float* tile_;
  UnitTiles codes_;
  UnitSums sums_[2];
};

template <typename Tiles, typename Unit, typename Scales, bool kOffsets>
static void multiply_tiles_of(const WeightView& w, std::int64_t panel, std::int64_t panels, const InputView& input,
                              std::int64_t row, std::int64_t rows, float* tile) {
  if (panels == 2) {
    TileProduct<Tiles, Unit, Scales, kOffsets, 2>(w, panel, input, row, rows, tile).run();
  } else {
    TileProduct<Tiles, Unit, Scales, kOffsets, 1>(w, panel, input, row, rows, tile).run();
  }
}

/// Whether multiply_tiles() takes the weight: quantized, in groups of whole units.
LANNER_INLINE bool has_tiles(const WeightView& w) { return is_quantized_format(w.format) && w.group % 32 == 0; }

/// Kernels::multiply with one or two panels and any number of rows. Tiles read up to 15 rows behind the last one's
/// codes, which must be memory; what is there does not matter.
template <typename Tiles>
static void multiply_tiles(const WeightView& w, std::int64_t panel, std::int64_t panels, const InputView& input,
                           std::int64_t row, std::int64_t rows, float* tile) {
  Tiles::configure();
  visit_codes(w, [&]<CodeKind kKind, typename Scales, bool kOffsets>() {
    multiply_tiles_of<Tiles, WholeUnit<kKind>, Scales, kOffsets>(w, panel, panels, input, row, rows, tile);
  });
}

}  // namespace lanner::ops::cpu::LANNER_ISA
