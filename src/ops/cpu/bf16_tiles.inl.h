// Products of weights of any format in tiles of bf16 (TileKernels), with tiles of AMX or with what stands for them in
// amx_in_memory.cpp.
//
// A tile instruction takes 16 input rows, 16 weight rows and 32 columns. What a panel holds becomes bf16 once for all
// input rows of a block: scale and offset are applied in fp32 and the weight is rounded, so that no sum has to leave
// the tiles before the last column. Two by two tiles of sums share four loads.

// No include guard: it is included once by kernels_amx.cpp and once by amx_in_memory.cpp, behind amx.inl.h.

namespace lanner::ops::cpu::LANNER_ISA {

/// The words of the lower and of the upper half in turn.
LANNER_INLINE __m512i interleave_halves(__m512i halves) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, halves);
}

/// Two columns of 16 weight rows side by side as a tile wants them: pairs of bf16.
LANNER_INLINE void store_pairs(std::uint16_t* out, F32x16 even, F32x16 odd) {
  const auto halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd.v, even.v));
  _mm512_storeu_si512(out, interleave_halves(halves));
}

/// Four bits of each lane, from bit kShift on, as a number.
template <unsigned kShift>
LANNER_INLINE F32x16 nibble_number(__m512i codes) {
  const __m512 numbers = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return {_mm512_permutexvar_ps(_mm512_srli_epi32(codes, kShift), numbers)};  // looks at the lowest four bits alone
}

/// One byte of each lane, which is a code + 128, as a number.
template <unsigned kByte>
LANNER_INLINE F32x16 byte_number(__m512i codes) {
  const __m512i code = _mm512_xor_si512(codes, _mm512_set1_epi32(static_cast<int>(0x80808080U)));
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(code, 24 - 8 * kByte), 24))};
}

/// A unit of 32 columns of a panel's codes becomes a tile.
struct NibbleTile {
  static constexpr std::int64_t kBytes = kBf16TileColumns * kPanelRows / 2;
  /// Codes without offsets are counted from the middle.
  LANNER_INLINE F32x16 no_offset(F32x16 scale) { return mul(scale, set1(-8.0F)); }
  LANNER_INLINE void unpack(const std::byte* unit, F32x16 scale, F32x16 offset, std::uint16_t* out) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(unit);
    for (int i = 0; i < kBytes / 64; ++i, out += 4 * 2 * kPanelRows) {
      const __m512i codes = load_codes(bytes + 64 * i).v;
      const auto number = [&]<unsigned kShift>() { return fma(scale, nibble_number<kShift>(codes), offset); };
      store_pairs(out, number.template operator()<0>(), number.template operator()<8>());
      store_pairs(out + 2 * kPanelRows, number.template operator()<16>(), number.template operator()<24>());
      store_pairs(out + 4 * kPanelRows, number.template operator()<4>(), number.template operator()<12>());
      store_pairs(out + 6 * kPanelRows, number.template operator()<20>(), number.template operator()<28>());
    }
  }
};

struct ByteTile {
  static constexpr std::int64_t kBytes = kBf16TileColumns * kPanelRows;
  LANNER_INLINE F32x16 no_offset(F32x16) { return zero(); }
  LANNER_INLINE void unpack(const std::byte* unit, F32x16 scale, F32x16 offset, std::uint16_t* out) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(unit);
    for (int i = 0; i < kBytes / 64; ++i, out += 2 * 2 * kPanelRows) {
      const __m512i codes = load_codes(bytes + 64 * i).v;
      const auto number = [&]<unsigned kByte>() { return fma(scale, byte_number<kByte>(codes), offset); };
      store_pairs(out, number.template operator()<0>(), number.template operator()<1>());
      store_pairs(out + 2 * kPanelRows, number.template operator()<2>(), number.template operator()<3>());
    }
  }
};

template <typename Tile, typename Scales, bool kOffsets>
static void unpack_codes(const WeightView& w, std::int64_t panel, std::int64_t first, std::int64_t count,
                         std::uint16_t* tiles) {
  using Layout = CodeLayout<Tile, kBf16TileColumns, Scales, kOffsets>;
  const Layout layout = Layout::of(w);
  const std::byte* codes = w.data + panel * w.panel_bytes;
  const auto place = [&](std::int64_t tile) {
    return tile / layout.units * layout.group_bytes + tile % layout.units * Tile::kBytes;
  };
  // Behind these tiles come the same ones of the next panel.
  const std::int64_t end = place(first + count);
  const std::int64_t next = w.panel_bytes + place(first);
  std::int64_t unit = first % layout.units;
  for (std::int64_t group = first / layout.units * layout.group_bytes; count > 0;
       group += layout.group_bytes, unit = 0) {
    const std::byte* scales = codes + group + layout.units * Tile::kBytes;
    const F32x16 scale = Scales::load16(scales);
    const F32x16 offset = kOffsets ? Scales::offset16(scales, scale) : Tile::no_offset(scale);
    for (; unit < layout.units && count > 0; ++unit, --count, tiles += kBf16TileElements) {
      const std::int64_t at = group + unit * Tile::kBytes;
      prefetch_ahead(codes, at, Tile::kBytes + Layout::kMetaBytes, end, next);
      Tile::unpack(codes + at, scale, offset, tiles);
    }
  }
}

/// 16 weight rows of one column of a dense weight, which begins at `column`.
template <WeightFormat kFormat>
LANNER_INLINE F32x16 dense_column(const std::uint16_t* column) {
  return kFormat == WeightFormat::kF16 ? load_half(column) : load_bfloat(column);
}

template <WeightFormat kFormat>
static void unpack_dense(const WeightView& w, std::int64_t panel, std::int64_t first, std::int64_t count,
                         std::uint16_t* tiles) {
  constexpr std::int64_t kLine = 64;                                      // two columns
  constexpr std::int64_t kTileBytes = kBf16TileColumns * kPanelRows * 2;  // as it lies in the panel
  const std::byte* start = w.data + panel * w.panel_bytes;
  const auto* elements = reinterpret_cast<const std::uint16_t*>(start);
  const std::int64_t begin = first * kBf16TileColumns;
  const std::int64_t behind = (first + count) * kTileBytes;
  const std::int64_t end = behind < w.panel_bytes ? behind : w.panel_bytes;
  const std::int64_t next = w.panel_bytes + first * kTileBytes;  // the same tiles of the next panel
  for (std::int64_t pair = begin; pair < begin + count * kBf16TileColumns; pair += 2, tiles += 2 * kPanelRows) {
    const std::uint16_t* column = elements + pair * kPanelRows;
    prefetch_ahead(start, pair * kPanelRows * 2, kLine, end, next);
    const bool whole = pair + 1 < w.cols;
    if (kFormat == WeightFormat::kBF16 && whole) {  // they are bf16
      _mm512_storeu_si512(tiles, interleave_halves(_mm512_loadu_si512(column)));
      continue;
    }
    store_pairs(tiles, pair < w.cols ? dense_column<kFormat>(column) : zero(),
                whole ? dense_column<kFormat>(column + kPanelRows) : zero());
  }
}

static void unpack_tiles(const WeightView& w, std::int64_t panel, std::int64_t first, std::int64_t count,
                         std::uint16_t* tiles) {
  if (w.format == WeightFormat::kF16) return unpack_dense<WeightFormat::kF16>(w, panel, first, count, tiles);
  if (w.format == WeightFormat::kBF16) return unpack_dense<WeightFormat::kBF16>(w, panel, first, count, tiles);
  visit_codes(w, [&]<CodeKind kKind, typename Scales, bool kOffsets>() {
    using Tile = std::conditional_t<kKind == CodeKind::kBytes, ByteTile, NibbleTile>;
    unpack_codes<Tile, Scales, kOffsets>(w, panel, first, count, tiles);
  });
}

static bool takes_weight(const WeightView& w) {
  return is_quantized_format(w.format) ? w.group % kBf16TileColumns == 0 : w.format != WeightFormat::kF32;
}

static void round_row(const float* x, std::int64_t n, std::uint16_t* row) {
  std::int64_t i = 0;
  for (; i + kBf16TileColumns <= n; i += kBf16TileColumns, row += kBf16TileElements) {
    _mm512_storeu_si512(row, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load(x + i + 16).v, load(x + i).v)));
  }
  if (i == n) return;
  const auto rest = static_cast<unsigned>(n - i);
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(rest < 16 ? (1U << rest) - 1 : 0xFFFFU), x + i);
  const __m512 high = rest <= 16 ? _mm512_setzero_ps()
                                 : _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << (rest - 16)) - 1), x + i + 16);
  _mm512_storeu_si512(row, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}

static void round_rows(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t n, std::uint16_t* place) {
  for (std::int64_t r = 0; r < rows; ++r) round_row(x + r * stride, n, place + r * kBf16TileColumns);
}

template <typename Tiles, bool kBelow, bool kBeside>
static void multiply_whole_tiles(const TileCall& product) {
  constexpr std::int64_t kLine = 64;  // bytes of a tile's row
  constexpr std::int64_t kStride = (kBeside ? 2 : 1) * kPanelRows * 4;
  float* below = product.sums + kBf16TileRows * kStride / 4;
  if (product.adds) {
    Tiles::template load<0>(product.sums, kStride);
    if constexpr (kBeside) Tiles::template load<1>(product.sums + kPanelRows, kStride);
    if constexpr (kBelow) Tiles::template load<2>(below, kStride);
    if constexpr (kBelow && kBeside) Tiles::template load<3>(below + kPanelRows, kStride);
  } else {
    Tiles::template zero<0>();
    if constexpr (kBeside) Tiles::template zero<1>();
    if constexpr (kBelow) Tiles::template zero<2>();
    if constexpr (kBelow && kBeside) Tiles::template zero<3>();
  }
  for (std::int64_t at = 0; at < product.tiles * kBf16TileElements; at += kBf16TileElements) {
    // All loads ahead of the products: a tenth faster than each behind the load that it waits for.
    Tiles::template load<4>(product.input + at, kLine);
    if constexpr (kBelow) Tiles::template load<5>(product.input_below + at, kLine);
    Tiles::template load<6>(product.panel + at, kLine);
    if constexpr (kBeside) Tiles::template load<7>(product.panel_beside + at, kLine);
    Tiles::template multiply_bf16<0, 4, 6>();
    if constexpr (kBeside) Tiles::template multiply_bf16<1, 4, 7>();
    if constexpr (kBelow) Tiles::template multiply_bf16<2, 5, 6>();
    if constexpr (kBelow && kBeside) Tiles::template multiply_bf16<3, 5, 7>();
  }
  Tiles::template store<0>(product.sums, kStride);
  if constexpr (kBeside) Tiles::template store<1>(product.sums + kPanelRows, kStride);
  if constexpr (kBelow) Tiles::template store<2>(below, kStride);
  if constexpr (kBelow && kBeside) Tiles::template store<3>(below + kPanelRows, kStride);
}

template <typename Tiles>
static void multiply_bf16_tiles(const TileCall& product) {
  if (product.input_below != nullptr) {
    return product.panel_beside != nullptr ? multiply_whole_tiles<Tiles, true, true>(product)
                                           : multiply_whole_tiles<Tiles, true, false>(product);
  }
  return product.panel_beside != nullptr ? multiply_whole_tiles<Tiles, false, true>(product)
                                         : multiply_whole_tiles<Tiles, false, false>(product);
}

template <typename Tiles>
static void configure_tiles() {
  Tiles::configure();
}

}  // namespace lanner::ops::cpu::LANNER_ISA
