// The kernels of the CPU back end: one source, compiled once for each instruction set.
//
// The including file defines LANNER_ISA (the namespace) and includes the simd_*.h of the same set. Here are products
// and attention; rows.inl.h has what goes over one row of numbers, codes.inl.h how quantized weights are read,
// kv_codes.inl.h attention over keys and values in codes. Nothing in them may instantiate a template or call an inline
// function that other files share: the linker keeps one copy, and it might keep the one with instructions that the
// processor lacks.
//
// Products are bound by the bus for a few rows (the weight is read once) and by the multipliers for many. A panel's
// codes are unpacked once for all rows of a tile. A single row walks one panel after the other: one stream of loads
// fills the bus better than several.

// No include guard: it is included once by each kernels_<isa>.cpp.

#include "ops/cpu/codes.inl.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/kv_codes.inl.h"
#include "ops/cpu/rows.inl.h"

namespace lanner::ops::cpu::LANNER_ISA {

// Reading elements as fp32 lanes.
struct ElementF32 {
  using Type = float;
  LANNER_INLINE F32x16 load16(const Type* p) { return load(p); }
};
struct ElementF16 {
  using Type = std::uint16_t;
  LANNER_INLINE F32x16 load16(const Type* p) { return load_half(p); }
};
struct ElementBF16 {
  using Type = std::uint16_t;
  LANNER_INLINE F32x16 load16(const Type* p) { return load_bfloat(p); }
};

// --- quantization --------------------------------------------------------------------------------------------------

static void quantize(const float* x, std::int64_t n, std::int8_t* codes, ActivationGroup* groups) {
  constexpr auto kLargest = static_cast<float>(kLargestCode);
  F32x16 poison = zero();  // 0, or NaN when a value is not finite
  for (std::int64_t g = 0; g < n / kActivationGroup; ++g) {
    const F32x16 a = load(x + g * kActivationGroup);
    const F32x16 b = load(x + g * kActivationGroup + 16);
    const float largest = reduce_max(max(abs(a), abs(b)));
    poison = fma(add(a, b), zero(), poison);
    const float inverse = largest > 0 ? kLargest / largest : 0.0F;
    std::int8_t* high = codes + g * 2 * kActivationGroup;
    std::int8_t* low = high + kActivationGroup;
    ActivationGroup& group = groups[g];
    group.sums[0] = store_codes(mul(a, set1(inverse)), high, low);
    group.sums[1] = store_codes(mul(b, set1(inverse)), high + 16, low + 16);
    group.scale = largest * (1.0F / kLargest);
    group.sum = group.scale * static_cast<float>(group.sums[0] + group.sums[1]);
  }
  groups[0].scale += reduce_add(poison);  // one is enough: every output sums over all groups
}

// --- products with dense weights -------------------------------------------------------------------------------

template <typename Element, int kPanels, int kRows>
static void multiply_dense(const WeightView& weight, std::int64_t panel, const InputView& input, std::int64_t row,
                           float* tile) {
  using Type = typename Element::Type;
  const Type* w[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    w[p] = reinterpret_cast<const Type*>(weight.data + (panel + p) * weight.panel_bytes);
  }
  const float* x[kRows];
  for (int r = 0; r < kRows; ++r) x[r] = input.values + (row + r) * weight.cols;
  F32x16 sum[kPanels][kRows];
  for (auto& panel_sums : sum) {
    for (F32x16& s : panel_sums) s = zero();
  }
  constexpr std::int64_t kColumnBytes = kPanelRows * sizeof(Type);
  constexpr std::int64_t kLine = 64;
  constexpr std::int64_t kStep = kLine / kColumnBytes;
  for (std::int64_t step = 0; step < weight.cols; step += kStep) {
    for (int p = 0; p < kPanels; ++p) {
      prefetch_ahead(weight.data + (panel + p) * weight.panel_bytes, step * kColumnBytes, kLine, weight.panel_bytes,
                     kPanels * weight.panel_bytes);
    }
    const std::int64_t end = step + kStep < weight.cols ? step + kStep : weight.cols;
    for (std::int64_t k = step; k < end; ++k) {
      for (int p = 0; p < kPanels; ++p) {
        const F32x16 column = Element::load16(w[p] + k * kPanelRows);
        for (int r = 0; r < kRows; ++r) sum[p][r] = fma(column, set1(x[r][k]), sum[p][r]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) store(tile + (r * kPanels + p) * kPanelRows, sum[p][r]);
  }
}

// --- products with quantized weights ---------------------------------------------------------------------------

/// The products of units, one of each panel, with 15-bit codes: exact, since they stay below 2^29.
template <typename Unit, int kPanels>
LANNER_INLINE void dot_units(const Unit* units, const std::int8_t* high, std::int32_t sum_of_x, I32x16* dots) {
  const std::int8_t* low = high + kActivationGroup;
  I32x16 upper[kPanels];  // two chains a panel, for the latency
  I32x16 lower[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    upper[p] = set1_int(0);
    lower[p] = Unit::start(sum_of_x);
  }
  for (int step = 0; step < Unit::kSteps; ++step) {
    for (int p = 0; p < kPanels; ++p) {
      upper[p] = Unit::dot(upper[p], units[p], step, high);
      lower[p] = Unit::dot(lower[p], units[p], step, low);
    }
  }
  for (int p = 0; p < kPanels; ++p) dots[p] = add_int(times_low_steps(upper[p]), lower[p]);
}

/// The scales and offsets of one group of kPanels panels, of which the first one's group begins at `group`.
template <typename Layout, int kPanels>
LANNER_INLINE void load_group(const std::byte* group, const Layout& layout, std::int64_t panel_bytes, F32x16* scale,
                              F32x16* offset) {
  for (int p = 0; p < kPanels; ++p) {
    const std::byte* meta = group + p * panel_bytes + layout.code_bytes;
    scale[p] = Layout::Scales::load16(meta);
    if constexpr (Layout::kHasOffsets) offset[p] = Layout::Scales::offset16(meta, scale[p]);
  }
}

/// One row. Integer sums are exact; units are added in ascending order, each by the same two operations.
template <typename Unit, std::int64_t kColumns, typename Scales, bool kOffsets, int kPanels>
static void multiply_codes_row(const WeightView& weight, std::int64_t panel, const InputView& input, std::int64_t row,
                               float* tile) {
  using Layout = CodeLayout<Unit, kColumns, Scales, kOffsets>;
  const Layout layout = Layout::of(weight);
  const std::byte* panels = weight.data + panel * weight.panel_bytes;
  const bool prefetched = Unit::kPartsOfLines || !prefetches_streams_well();
  F32x16 sum[kPanels];
  for (F32x16& s : sum) s = zero();
  for (std::int64_t g = 0; g < layout.groups; ++g) {
    F32x16 scale[kPanels];
    F32x16 offset[kPanels];
    load_group<Layout, kPanels>(panels + g * layout.group_bytes, layout, weight.panel_bytes, scale, offset);
    for (std::int64_t u = 0; u < layout.units; ++u) {
      const auto x = UnitInput<kColumns>::at(input, weight.cols, row, g * layout.units + u);
      for (int p = 0; p < kPanels; ++p) {
        const std::byte* start = panels + p * weight.panel_bytes;
        const std::int64_t at = g * layout.group_bytes + u * Unit::kBytes;
        if (prefetched) {
          prefetch_ahead(start, at, Unit::kBytes + Layout::kMetaBytes, weight.panel_bytes,
                         kPanels * weight.panel_bytes);
        }
        const Unit unit = Unit::unpack(start + at);
        I32x16 dot;
        dot_units<Unit, 1>(&unit, x.high, x.sum_of_codes, &dot);
        sum[p] = fma(to_float(dot), mul(scale[p], x.scale), sum[p]);
        if constexpr (kOffsets) sum[p] = fma(offset[p], x.sum, sum[p]);
      }
    }
  }
  for (int p = 0; p < kPanels; ++p) store(tile + p * kPanelRows, sum[p]);
}

/// Several rows: a unit of each panel is unpacked into registers once for all of them. The sums, which do not fit there
/// too, wait in the tile. A row's arithmetic is that of multiply_codes_row.
template <typename Unit, std::int64_t kColumns, typename Scales, bool kOffsets, int kPanels>
static void multiply_codes_rows(const WeightView& weight, std::int64_t panel, const InputView& input, std::int64_t row,
                                std::int64_t rows, float* tile) {
  using Layout = CodeLayout<Unit, kColumns, Scales, kOffsets>;
  const Layout layout = Layout::of(weight);
  const std::byte* panels = weight.data + panel * weight.panel_bytes;
  for (std::int64_t i = 0; i < rows * kPanels; ++i) store(tile + i * kPanelRows, zero());
  for (std::int64_t g = 0; g < layout.groups; ++g) {
    F32x16 scale[kPanels];
    F32x16 offset[kPanels];
    load_group<Layout, kPanels>(panels + g * layout.group_bytes, layout, weight.panel_bytes, scale, offset);
    for (std::int64_t u = 0; u < layout.units; ++u) {
      Unit units[kPanels];
      for (int p = 0; p < kPanels; ++p) {
        const std::byte* start = panels + p * weight.panel_bytes;
        const std::int64_t at = g * layout.group_bytes + u * Unit::kBytes;
        prefetch_ahead(start, at, Unit::kBytes + Layout::kMetaBytes, weight.panel_bytes, kPanels * weight.panel_bytes);
        units[p] = Unit::unpack(start + at);
      }
      for (std::int64_t r = row; r < row + rows; ++r) {
        const auto x = UnitInput<kColumns>::at(input, weight.cols, r, g * layout.units + u);
        I32x16 dots[kPanels];
        dot_units<Unit, kPanels>(units, x.high, x.sum_of_codes, dots);
        float* sums = tile + (r - row) * kPanels * kPanelRows;
        for (int p = 0; p < kPanels; ++p) {
          F32x16 sum = fma(to_float(dots[p]), mul(scale[p], x.scale), load(sums + p * kPanelRows));
          if constexpr (kOffsets) sum = fma(offset[p], x.sum, sum);
          store(sums + p * kPanelRows, sum);
        }
      }
    }
  }
}

// --- from a weight's format and a tile's size to one of the bodies above ---------------------------------------

template <typename Unit, std::int64_t kColumns, typename Scales, bool kOffsets, int kPanels>
static void multiply_codes(const WeightView& w, std::int64_t panel, const InputView& input, std::int64_t row,
                           std::int64_t rows, float* tile) {
  if (rows == 1) return multiply_codes_row<Unit, kColumns, Scales, kOffsets, kPanels>(w, panel, input, row, tile);
  multiply_codes_rows<Unit, kColumns, Scales, kOffsets, kPanels>(w, panel, input, row, rows, tile);
}

template <int kPanels>
static void multiply_quantized(const WeightView& w, std::int64_t panel, const InputView& input, std::int64_t row,
                               std::int64_t rows, float* tile) {
  if (w.group % 32 != 0) {
    return multiply_codes<ByteUnit<16>, 16, FloatScales, true, kPanels>(w, panel, input, row, rows, tile);
  }
  visit_codes(w, [&]<CodeKind kKind, typename Scales, bool kOffsets>() {
    multiply_codes<WholeUnit<kKind>, 32, Scales, kOffsets, kPanels>(w, panel, input, row, rows, tile);
  });
}

template <int kPanels, int kRows>
static void multiply_dense_tile(const WeightView& w, std::int64_t panel, const InputView& input, std::int64_t row,
                                float* tile) {
  switch (w.format) {
    case WeightFormat::kF16: return multiply_dense<ElementF16, kPanels, kRows>(w, panel, input, row, tile);
    case WeightFormat::kBF16: return multiply_dense<ElementBF16, kPanels, kRows>(w, panel, input, row, tile);
    default: return multiply_dense<ElementF32, kPanels, kRows>(w, panel, input, row, tile);
  }
}

template <int kPanels>
static void multiply_dense_rows(const WeightView& w, std::int64_t panel, const InputView& input, std::int64_t row,
                                std::int64_t rows, float* tile) {
  while (rows >= kDenseRows) {
    multiply_dense_tile<kPanels, kDenseRows>(w, panel, input, row, tile);
    row += kDenseRows;
    rows -= kDenseRows;
    tile += kDenseRows * kPanels * kPanelRows;
  }
  switch (rows) {
    case 0: return;
    case 1: return multiply_dense_tile<kPanels, 1>(w, panel, input, row, tile);
    case 2: return multiply_dense_tile<kPanels, 2>(w, panel, input, row, tile);
    case 3: return multiply_dense_tile<kPanels, 3>(w, panel, input, row, tile);
    default: break;
  }
  if constexpr (kDenseRows > 4) {
    switch (rows) {
      case 4: return multiply_dense_tile<kPanels, 4>(w, panel, input, row, tile);
      case 5: return multiply_dense_tile<kPanels, 5>(w, panel, input, row, tile);
      case 6: return multiply_dense_tile<kPanels, 6>(w, panel, input, row, tile);
      default: return multiply_dense_tile<kPanels, 7>(w, panel, input, row, tile);
    }
  }
  __builtin_trap();
}

template <int kPanels>
static void multiply_panels(const WeightView& w, std::int64_t panel, const InputView& input, std::int64_t row,
                            std::int64_t rows, float* tile) {
  if (is_quantized_format(w.format)) return multiply_quantized<kPanels>(w, panel, input, row, rows, tile);
  return multiply_dense_rows<kPanels>(w, panel, input, row, rows, tile);
}

static void multiply(const WeightView& w, std::int64_t panel, std::int64_t panels, const InputView& input,
                     std::int64_t row, std::int64_t rows, float* tile) {
  if (panels == 1) return multiply_panels<1>(w, panel, input, row, rows, tile);
  if constexpr (kTilePanels > 1) {
    if (panels == kTilePanels) return multiply_panels<kTilePanels>(w, panel, input, row, rows, tile);
  }
  __builtin_trap();  // callers cut panels as the table's constants say
}

// --- attention -------------------------------------------------------------------------------------------------

template <typename Element>
static void write_kv_as(const float* key, const float* value, std::int64_t head_dim, std::int64_t slot,
                        std::byte* head) {
  using Type = typename Element::Type;
  Type* keys = reinterpret_cast<Type*>(head);
  Type* values = keys + kKvBlockTokens * head_dim;
  for (std::int64_t d = 0; d < head_dim; d += 16) {
    Type rounded[16];
    if constexpr (sizeof(Type) == sizeof(float)) {
      __builtin_memcpy(rounded, key + d, sizeof(rounded));
      __builtin_memcpy(values + slot * head_dim + d, value + d, sizeof(rounded));
    } else {
      Element::store16(rounded, load(key + d));
      Element::store16(values + slot * head_dim + d, load(value + d));
    }
    for (std::int64_t i = 0; i < 16; ++i) keys[(d + i) * kKvBlockTokens + slot] = rounded[i];
  }
}

struct WriteF16 : ElementF16 {
  LANNER_INLINE void store16(std::uint16_t* p, F32x16 x) { store_half(p, x); }
};
struct WriteBF16 : ElementBF16 {
  LANNER_INLINE void store16(std::uint16_t* p, F32x16 x) {
    float values[16];
    store(values, x);
    for (int i = 0; i < 16; ++i) {  // round to nearest even; a NaN stays one
      std::uint32_t bits;
      __builtin_memcpy(&bits, &values[i], sizeof(bits));
      const bool nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
      p[i] = static_cast<std::uint16_t>(nan ? (bits >> 16U) | 0x40U : (bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
    }
  }
};

static void write_kv(const KvLayout& layout, const float* key, const float* value, std::int64_t slot, std::byte* head) {
  const std::int64_t head_dim = layout.head_dim;
  if (layout.codes == KvCodes::kInt8) return write_codes<CodesInt8>(key, value, head_dim, slot, head);
  if (layout.codes == KvCodes::kInt4) return write_codes<CodesInt4>(key, value, head_dim, slot, head);
  if (layout.dtype == DType::kF32) return write_kv_as<ElementF32>(key, value, head_dim, slot, head);
  if (layout.dtype == DType::kF16) return write_kv_as<WriteF16>(key, value, head_dim, slot, head);
  return write_kv_as<WriteBF16>(key, value, head_dim, slot, head);
}

/// kVectors * 16 tokens of one block for kQueries queries.
template <typename Element, int kQueries, int kVectors>
LANNER_INLINE void score_tokens(const typename Element::Type* keys, const float* const* q, std::int64_t head_dim,
                                float scale, float* scores) {
  F32x16 sum[kQueries][kVectors];
  for (auto& query_sums : sum) {
    for (F32x16& s : query_sums) s = zero();
  }
  // Values lie behind the keys. The processor's own prefetching ends with the page, and a block's head is few of them.
  const auto* values = reinterpret_cast<const std::byte*>(keys + kKvBlockTokens * head_dim);
  constexpr auto kRowBytes = static_cast<std::int64_t>(kKvBlockTokens * sizeof(*keys));
  constexpr auto kOwnBytes = static_cast<std::int64_t>(kVectors * 16 * sizeof(*keys));
  for (std::int64_t d = 0; d < head_dim; ++d) {
    for (std::int64_t line = 0; line < kOwnBytes; line += 64) prefetch(values + d * kRowBytes + line);
    for (int v = 0; v < kVectors; ++v) {
      const F32x16 k = Element::load16(keys + d * kKvBlockTokens + v * 16);
      for (int n = 0; n < kQueries; ++n) sum[n][v] = fma(k, set1(q[n][d]), sum[n][v]);
    }
  }
  for (int n = 0; n < kQueries; ++n) {
    for (int v = 0; v < kVectors; ++v) store(scores + n * kChunkTokens + v * 16, mul(sum[n][v], set1(scale)));
  }
}

template <typename Element, int kQueries>
static void scores_as(const std::byte* const* heads, std::int64_t tokens, const float* const* q, std::int64_t head_dim,
                      float scale, float* scores) {
  for (std::int64_t t = 0; t < tokens;) {
    const auto* keys = reinterpret_cast<const typename Element::Type*>(heads[t / kKvBlockTokens]) + t % kKvBlockTokens;
    if (tokens - t >= kScoreVectors * 16) {
      score_tokens<Element, kQueries, kScoreVectors>(keys, q, head_dim, scale, scores + t);
      t += kScoreVectors * 16;
    } else {
      score_tokens<Element, kQueries, 1>(keys, q, head_dim, scale, scores + t);
      t += 16;
    }
  }
}

template <typename Element, int kQueries, int kVectors>
LANNER_INLINE void weigh_values(const std::byte* const* heads, const std::byte* const* next, std::int64_t tokens,
                                const float* weights, std::int64_t head_dim, std::int64_t first, float* const* out) {
  using Type = typename Element::Type;
  F32x16 sum[kQueries][kVectors];
  for (auto& query_sums : sum) {
    for (F32x16& s : query_sums) s = zero();
  }
  for (std::int64_t block = 0; block * kKvBlockTokens < tokens; ++block) {
    const Type* values = reinterpret_cast<const Type*>(heads[block]) + kKvBlockTokens * head_dim + first;
    const std::int64_t left = tokens - block * kKvBlockTokens;
    const std::int64_t here = left < kKvBlockTokens ? left : kKvBlockTokens;
    const std::byte* keys = next[block] == nullptr ? nullptr : next[block] + first * sizeof(Type);
    for (std::int64_t t = 0; t < here; ++t) {
      if (keys != nullptr) {
        for (std::size_t line = 0; line < kVectors * 16 * sizeof(Type); line += 64) prefetch(keys + line);
        keys += static_cast<std::size_t>(head_dim) * sizeof(Type);
      }
      for (int v = 0; v < kVectors; ++v) {
        const F32x16 value = Element::load16(values + t * head_dim + v * 16);
        for (int n = 0; n < kQueries; ++n) {
          const float weight = weights[n * kChunkTokens + block * kKvBlockTokens + t];
          sum[n][v] = fma(value, set1(weight), sum[n][v]);
        }
      }
    }
  }
  for (int n = 0; n < kQueries; ++n) {
    for (int v = 0; v < kVectors; ++v) store(out[n] + first + v * 16, sum[n][v]);
  }
}

template <typename Element, int kQueries>
static void values_as(const std::byte* const* heads, const std::byte* const* next, std::int64_t tokens,
                      const float* weights, std::int64_t head_dim, float* const* out) {
  for (std::int64_t d = 0; d < head_dim;) {
    if (head_dim - d >= kScoreVectors * 16) {
      weigh_values<Element, kQueries, kScoreVectors>(heads, next, tokens, weights, head_dim, d, out);
      d += kScoreVectors * 16;
    } else {
      weigh_values<Element, kQueries, 1>(heads, next, tokens, weights, head_dim, d, out);
      d += 16;
    }
  }
}

/// Calls function.template operator()<Format, queries>() for what is known at run time: Codes or Element.
template <typename Function>
LANNER_INLINE void with_format_and_queries(const KvLayout& layout, std::int64_t queries, Function function) {
  const auto with_queries = [&]<typename Format>() {
    if (queries == 1) return function.template operator()<Format, 1>();
    if constexpr (kScoreQueries >= 2) {
      if (queries == 2) return function.template operator()<Format, 2>();
    }
    if constexpr (kScoreQueries >= 4) {
      if (queries == 3) return function.template operator()<Format, 3>();
      if (queries == 4) return function.template operator()<Format, 4>();
    }
    __builtin_trap();  // callers keep to score_queries
  };
  if (layout.codes == KvCodes::kInt8) return with_queries.template operator()<CodesInt8>();
  if (layout.codes == KvCodes::kInt4) return with_queries.template operator()<CodesInt4>();
  if (layout.dtype == DType::kF32) return with_queries.template operator()<ElementF32>();
  if (layout.dtype == DType::kF16) return with_queries.template operator()<ElementF16>();
  return with_queries.template operator()<ElementBF16>();
}

static void scores(const KvLayout& layout, const std::byte* const* heads, std::int64_t tokens, const float* const* q,
                   std::int64_t queries, float scale, float* out) {
  with_format_and_queries(layout, queries, [&]<typename Format, int kQueries>() {
    scores_as<Format, kQueries>(heads, tokens, q, layout.head_dim, scale, out);
  });
}

static void values(const KvLayout& layout, const std::byte* const* heads, const std::byte* const* next,
                   std::int64_t tokens, const float* weights, std::int64_t queries, float* const* out) {
  with_format_and_queries(layout, queries, [&]<typename Format, int kQueries>() {
    values_as<Format, kQueries>(heads, next, tokens, weights, layout.head_dim, out);
  });
}

static void softmax(float* scores, std::int64_t first, std::int64_t valid, std::int64_t tokens, float* max_out,
                    float* sum_out) {
  constexpr float kMasked = -__builtin_inff();
  const std::int64_t padded = (tokens + 15) / 16 * 16;
  for (std::int64_t early = 0; early < first; ++early) scores[early] = kMasked;
  for (std::int64_t t = valid; t < padded; ++t) scores[t] = kMasked;
  F32x16 largest = set1(kMasked);
  for (std::int64_t t = 0; t < padded; t += 16) largest = max(load(scores + t), largest);
  const float m = reduce_max(largest);
  F32x16 sum = zero();
  for (std::int64_t t = 0; t < padded; t += 16) {
    const F32x16 e = exponential(sub(load(scores + t), set1(m)));
    store(scores + t, e);
    sum = add(sum, e);
  }
  *max_out = m;
  *sum_out = reduce_add(sum);
}

static void merge(float* out, float a, const float* chunk, float b, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += 16) {
    store(out + i, fma(load(chunk + i), set1(b), mul(load(out + i), set1(a))));
  }
}

static_assert(kTileRows <= kMaxTileRows && kTilePanels <= kMaxTilePanels && kScoreQueries <= kMaxScoreQueries);

const Kernels& kernels() {
  static constexpr Kernels kTable{
      .isa = kIsa,
      .tile_rows = kTileRows,
      .tile_panels = kTilePanels,
      .score_queries = kScoreQueries,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .quantize = quantize,
      .multiply = multiply,
      .gate = gate_rows,
      .add_scaled = add_scaled,
      .rotate = rotate,
      .write_kv = write_kv,
      .scores = scores,
      .soft_cap = soft_cap,
      .add_slope = add_slope,
      .softmax = softmax,
      .values = values,
      .merge = merge,
  };
  return kTable;
}

}  // namespace lanner::ops::cpu::LANNER_ISA
