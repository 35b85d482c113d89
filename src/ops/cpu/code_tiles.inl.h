// Products of a few rows by quantized weights in tiles of bf16 (TileKernels::multiply_codes), with tiles of AMX or with
// what stands for them in amx_in_memory.cpp.
//
// A tile instruction takes the same time for 1 row and for 16. What would take longer is to make bf16 weights of a
// panel, with scale and offset, for so few rows; so the codes alone become bf16, which holds them exactly and takes two
// instructions for 32 of them. A group's sums then leave the tiles, and the vector unit applies scale and offset while
// the tiles take the next group. Of the factors only the activations are rounded.

// No include guard: it is included once by kernels_amx.cpp and once by amx_in_memory.cpp, behind bf16_tiles.inl.h.

namespace lanner::ops::cpu::LANNER_ISA {

/// 32 columns of a panel's codes of 4 bits, as a tile of code - kZero.
template <int kZero>
struct NibbleIntegers {
  static constexpr std::int64_t kBytes = kBf16TileColumns * kPanelRows / 2;

  LANNER_INLINE void unpack(const std::byte* unit, std::uint16_t* out) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(unit);
    const __m512i integers = _mm512_load_si512(kIntegers.numbers);
    // Of each row's four bytes two become a word each, whose lowest four bits are the place in the table.
    const __m512i first =
        _mm512_broadcast_i32x4(_mm_set_epi8(-1, 13, -1, 12, -1, 9, -1, 8, -1, 5, -1, 4, -1, 1, -1, 0));
    const __m512i second =
        _mm512_broadcast_i32x4(_mm_set_epi8(-1, 15, -1, 14, -1, 11, -1, 10, -1, 7, -1, 6, -1, 3, -1, 2));
    for (int i = 0; i < kBytes / 64; ++i, out += 4 * 2 * kPanelRows) {
      const __m512i codes = load_codes(bytes + 64 * i).v;
      const __m512i lower = _mm512_shuffle_epi8(codes, first);
      const __m512i upper = _mm512_shuffle_epi8(codes, second);
      _mm512_store_si512(out, _mm512_permutexvar_epi16(lower, integers));
      _mm512_store_si512(out + 2 * kPanelRows, _mm512_permutexvar_epi16(upper, integers));
      _mm512_store_si512(out + 4 * kPanelRows, _mm512_permutexvar_epi16(_mm512_srli_epi16(lower, 4), integers));
      _mm512_store_si512(out + 6 * kPanelRows, _mm512_permutexvar_epi16(_mm512_srli_epi16(upper, 4), integers));
    }
  }

 private:
  /// By the lowest five bits of a word, of which the fifth belongs to another code.
  struct alignas(64) Table {
    std::uint16_t numbers[32];
  };
  static constexpr Table make_table() {
    Table table{};
    for (int i = 0; i < 32; ++i) {
      const auto number = static_cast<float>(i % 16 - kZero);
      table.numbers[i] = static_cast<std::uint16_t>(__builtin_bit_cast(std::uint32_t, number) >> 16);
    }
    return table;
  }
  static constexpr Table kIntegers = make_table();
};

/// 32 columns of a panel's bytes, which are code + 128, as a tile of codes.
struct ByteIntegers {
  static constexpr std::int64_t kBytes = kBf16TileColumns * kPanelRows;

  LANNER_INLINE void unpack(const std::byte* unit, std::uint16_t* out) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(unit);
    for (int i = 0; i < kBytes / 64; ++i, out += 2 * 2 * kPanelRows) {
      const __m512i codes = load_codes(bytes + 64 * i).v;
      _mm512_store_si512(out, pair(codes, _mm512_srli_epi32(codes, 8)));
      _mm512_store_si512(out + 2 * kPanelRows, pair(_mm512_srli_epi32(codes, 16), _mm512_srli_epi32(codes, 24)));
    }
  }

 private:
  static constexpr int kAndOr = 0xEA;  // (a and b) or c

  /// The lowest byte of each lane, less 128. The byte as the last bits of 2^23 is 2^23 + byte.
  LANNER_INLINE __m512i integer(__m512i codes) {
    const __m512i bits =
        _mm512_ternarylogic_epi32(codes, _mm512_set1_epi32(0xFF), _mm512_set1_epi32(0x4B000000), kAndOr);
    return _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(0x1p23F + 128)));
  }
  /// Two columns side by side. The numbers have at most 8 bits, so that their upper halves are all of them.
  LANNER_INLINE __m512i pair(__m512i even, __m512i odd) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000U));
    return _mm512_ternarylogic_epi32(integer(odd), upper, _mm512_srli_epi32(integer(even), 16), kAndOr);
  }
};

/// A call's products, panel by panel.
template <typename Tiles, typename Integers, typename Scales, bool kOffsets>
class CodeTileProduct {
 public:
  explicit CodeTileProduct(const CodeCall& call) : call_(call), layout_(Layout::of(call.weight)) {}

  /// The panel's products, out (16 rows, 16 weight rows) with rows `stride` apart.
  void run(std::int64_t panel, float* out, std::int64_t stride) {
    panel_ = call_.weight.data + panel * call_.weight.panel_bytes;
    F32x16 sums[kBf16TileRows];
    for (F32x16& sum : sums) sum = zero();
    next_ = 0;
    left_ = layout_.units;
    unpack_next(codes_[0]);
    const std::uint16_t* input = call_.input;
    int turn = 0;
    for (std::int64_t group = 0; group < layout_.groups; ++group) {
      Tiles::template zero<0>();
      for (std::int64_t unit = 0; unit < layout_.units; ++unit, input += kBf16TileElements, turn ^= 1) {
        // A unit ahead, so that no tile waits for what was stored just before.
        unpack_next(codes_[turn ^ 1]);
        Tiles::before_loads();
        Tiles::template load<4>(input, kLine);
        Tiles::template load<6>(codes_[turn], kLine);
        Tiles::template multiply_bf16<0, 4, 6>();
      }
      Tiles::template store<0>(products_[group % 2], kLine);
      if (group > 0) add_group(group - 1, sums);
    }
    add_group(layout_.groups - 1, sums);
    for (std::int64_t r = 0; r < kBf16TileRows; ++r) store(out + r * stride, sums[r]);
  }

 private:
  using Layout = CodeLayout<Integers, kBf16TileColumns, Scales, kOffsets>;
  static constexpr std::int64_t kLine = 64;  // bytes of a tile's row

  __attribute__((always_inline)) void unpack_next(std::uint16_t* tile) {
    const std::int64_t panel_bytes = call_.weight.panel_bytes;
    if (next_ >= panel_bytes) return;
    prefetch_ahead(panel_, next_, Integers::kBytes + Layout::kMetaBytes, panel_bytes, panel_bytes);
    Integers::unpack(panel_ + next_, tile);
    next_ += Integers::kBytes;
    if (--left_ > 0) return;
    next_ += Layout::kMetaBytes;
    left_ = layout_.units;
  }

  __attribute__((always_inline)) void add_group(std::int64_t group, F32x16* sums) {
    const std::byte* meta = panel_ + group * layout_.group_bytes + layout_.code_bytes;
    const F32x16 scale = Scales::load16(meta);
    const auto& products = products_[group % 2];
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kBf16TileRows; ++r) sums[r] = fma(load(products[r]), scale, sums[r]);
    if constexpr (kOffsets) {
      const F32x16 offset = Scales::offset16(meta, scale);
      const float* of_units = call_.unit_sums + group * layout_.units * kBf16TileRows;
      F32x16 of_group = load(of_units);
      for (std::int64_t u = 1; u < layout_.units; ++u) of_group = add(of_group, load(of_units + u * kBf16TileRows));
      store(group_sums_, of_group);
#pragma GCC unroll 16
      for (std::int64_t r = 0; r < kBf16TileRows; ++r) sums[r] = fma(offset, set1(group_sums_[r]), sums[r]);
    }
  }

  const CodeCall& call_;
  const Layout layout_;
  const std::byte* panel_ = nullptr;
  std::int64_t next_ = 0;                                     // where the unit to be unpacked next lies in the panel
  std::int64_t left_ = 0;                                     // units of its group from it on
  alignas(64) std::uint16_t codes_[2][kBf16TileElements];     // a unit as a tile, and the next one
  alignas(64) float products_[2][kBf16TileRows][kPanelRows];  // of a group, and of the one before
  alignas(64) float group_sums_[kBf16TileRows];
};

template <typename Tiles, typename Integers, typename Scales, bool kOffsets>
static void multiply_codes_of(const CodeCall& call) {
  CodeTileProduct<Tiles, Integers, Scales, kOffsets> product(call);
  for (std::int64_t p = 0; p < call.panels; ++p) {
    product.run(call.panel + p, call.out + p * kPanelRows, call.panels * kPanelRows);
  }
}

template <typename Tiles>
static void multiply_code_tiles(const CodeCall& call) {
  visit_codes(call.weight, [&]<CodeKind kKind, typename Scales, bool kOffsets>() {
    using Integers = std::conditional_t<kKind == CodeKind::kBytes, ByteIntegers, NibbleIntegers<zero_of(kKind)>>;
    multiply_codes_of<Tiles, Integers, Scales, kOffsets>(call);
  });
}

/// Of one row, whose first place is `row`.
static void sum_units(const std::uint16_t* row, std::int64_t units, float* sums) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000U));
  for (std::int64_t unit = 0; unit < units; ++unit) {
    const __m512i pairs = _mm512_loadu_si512(row + unit * kBf16TileElements);
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, upper));
    sums[unit * kBf16TileRows] = reduce_add({_mm512_add_ps(even, odd)});
  }
}

}  // namespace lanner::ops::cpu::LANNER_ISA
