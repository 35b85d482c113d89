// How panels of quantized weights, and the rows that they are multiplied by, are read. Part of kernels.inl.h, which
// says how it is compiled, and of amx.inl.h.

// No include guard: it is included once by each of them.

#include <type_traits>

#include "ops/cpu/kernels.h"

namespace lanner::ops::cpu::LANNER_ISA {

constexpr bool is_quantized_format(WeightFormat format) {
  return format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
}

// How a group's 16 scales lie, at `meta`, and what is behind them where there are offsets.
struct HalfScales {
  static constexpr std::int64_t kBytes = 32;
  LANNER_INLINE F32x16 load16(const std::byte* p) { return load_half(reinterpret_cast<const std::uint16_t*>(p)); }
  LANNER_INLINE F32x16 offset16(const std::byte* meta, F32x16 /*scale*/) { return load16(meta + kBytes); }
};
struct FloatScales {
  static constexpr std::int64_t kBytes = 64;
  LANNER_INLINE F32x16 load16(const std::byte* p) { return load(reinterpret_cast<const float*>(p)); }
  LANNER_INLINE F32x16 offset16(const std::byte* meta, F32x16 /*scale*/) { return load16(meta + kBytes); }
};
/// Behind the scales are zero points, negated; `scale` is what load16(meta) gave.
struct ZeroPointScales {
  static constexpr std::int64_t kBytes = HalfScales::kBytes;
  LANNER_INLINE F32x16 load16(const std::byte* p) { return HalfScales::load16(p); }
  LANNER_INLINE F32x16 offset16(const std::byte* meta, F32x16 scale) { return mul(scale, load16(meta + kBytes)); }
};

LANNER_INLINE std::int32_t four_codes(const std::int8_t* p) {
  std::int32_t x4;
  __builtin_memcpy(&x4, p, sizeof(x4));
  return x4;
}

/// 16 codes in two planes; returns their sum.
LANNER_INLINE std::int32_t store_codes(F32x16 scaled, std::int8_t* high, std::int8_t* low) {
  const F32x16 rounded = round(scaled);
  const F32x16 upper = round(mul(rounded, set1(1.0F / static_cast<float>(kLowSteps))));
  const I32x16 upper_codes = store_int8(high, upper);
  const I32x16 lower_codes = store_int8(low, sub(rounded, mul(upper, set1(static_cast<float>(kLowSteps)))));
  return reduce_add_int(add_int(times_low_steps(upper_codes), lower_codes));
}

/// How a unit of kColumns columns of a panel lies in memory, and its product with four columns' codes a step. A code
/// means code - kZero.
template <std::int64_t kColumns, std::int32_t kZero>
struct NibbleUnit {
  static constexpr std::int64_t kBytes = kColumns * kPanelRows / 2;
  static constexpr bool kPartsOfLines = true;  // scales begin within a line
  static constexpr int kSteps = static_cast<int>(kColumns / 4);
  Codes codes[kSteps];
  LANNER_INLINE NibbleUnit unpack(const std::byte* p) {
    NibbleUnit unit;
    for (int i = 0; i < kSteps / 2; ++i) {
      const Codes both = load_codes(reinterpret_cast<const std::uint8_t*>(p) + 64 * i);
      unit.codes[2 * i] = low_nibbles(both);
      unit.codes[2 * i + 1] = high_nibbles(both);
    }
    return unit;
  }
  LANNER_INLINE I32x16 start(std::int32_t sum_of_x) { return set1_int(-kZero * sum_of_x); }
  LANNER_INLINE I32x16 dot(I32x16 sum, const NibbleUnit& unit, int step, const std::int8_t* x) {
    return dot_nibbles(sum, unit.codes[step], four_codes(x + 4 * step));
  }
};

template <std::int64_t kColumns>
struct ByteUnit {
  static constexpr std::int64_t kBytes = kColumns * kPanelRows;
  static constexpr bool kPartsOfLines = false;
  static constexpr int kSteps = static_cast<int>(kColumns / 4);
  Codes codes[kSteps];
  LANNER_INLINE ByteUnit unpack(const std::byte* p) {
    ByteUnit unit;
    for (int i = 0; i < kSteps; ++i) unit.codes[i] = load_codes(reinterpret_cast<const std::uint8_t*>(p) + 64 * i);
    return unit;
  }
  LANNER_INLINE I32x16 start(std::int32_t sum_of_x) { return bytes_start(sum_of_x); }
  LANNER_INLINE I32x16 dot(I32x16 sum, const ByteUnit& unit, int step, const std::int8_t* x) {
    return dot_bytes(sum, unit.codes[step], four_codes(x + 4 * step));
  }
};

/// What a quantized weight's codes are.
enum class CodeKind : std::uint8_t {
  kNibbles,          // 4 bits, from 0 on
  kCenteredNibbles,  // 4 bits, from kCenter on
  kBytes,            // 8 bits, which are kept as code + 128
};
inline constexpr std::int32_t zero_of(CodeKind kind) { return kind == CodeKind::kCenteredNibbles ? kCenter : 0; }

/// A unit of 32 columns.
template <CodeKind kKind>
using WholeUnit = std::conditional_t<kKind == CodeKind::kBytes, ByteUnit<32>, NibbleUnit<32, zero_of(kKind)>>;

/// visit.operator()<kind, scales, whether there are offsets>() for a weight whose groups are whole units.
template <typename Visit>
static void visit_codes(const WeightView& w, const Visit& visit) {
  if (w.format == WeightFormat::kInt8) {
    if (w.has_offsets) return visit.template operator()<CodeKind::kBytes, FloatScales, true>();
    return w.half_scales ? visit.template operator()<CodeKind::kBytes, HalfScales, false>()
                         : visit.template operator()<CodeKind::kBytes, FloatScales, false>();
  }
  if (!w.has_offsets) {
    return w.half_scales ? visit.template operator()<CodeKind::kCenteredNibbles, HalfScales, false>()
                         : visit.template operator()<CodeKind::kCenteredNibbles, FloatScales, false>();
  }
  if (w.zero_points) return visit.template operator()<CodeKind::kNibbles, ZeroPointScales, true>();
  return w.half_scales ? visit.template operator()<CodeKind::kNibbles, HalfScales, true>()
                       : visit.template operator()<CodeKind::kNibbles, FloatScales, true>();
}

/// Where the parts of a quantized weight's panels lie. A unit is the columns that share both scales: 32, or 16 where
/// the weight's groups are that small.
template <typename Unit, std::int64_t kColumns, typename ScalesOfGroup, bool kOffsets>
struct CodeLayout {
  using Scales = ScalesOfGroup;
  static constexpr bool kHasOffsets = kOffsets;
  static constexpr std::int64_t kMetaBytes = (kOffsets ? 2 : 1) * Scales::kBytes;
  std::int64_t units;  // of a group
  std::int64_t groups;
  std::int64_t group_bytes;
  std::int64_t code_bytes;  // of a group, ahead of its scales

  LANNER_INLINE CodeLayout of(const WeightView& weight) {
    const std::int64_t units = weight.group / kColumns;
    return {units, weight.cols / weight.group, units * Unit::kBytes + kMetaBytes, units * Unit::kBytes};
  }
};

/// What a row has at one unit.
template <std::int64_t kColumns>
struct UnitInput {
  const std::int8_t* high;
  std::int32_t sum_of_codes;
  F32x16 scale;
  F32x16 sum;
  LANNER_INLINE UnitInput at(const InputView& input, std::int64_t cols, std::int64_t row, std::int64_t unit) {
    const std::int8_t* codes = input.codes + row * code_stride(cols);
    const ActivationGroup* groups = input.groups + row * (cols / kActivationGroup);
    if constexpr (kColumns == kActivationGroup) {
      const ActivationGroup& group = groups[unit];
      return {codes + unit * 2 * kActivationGroup, group.sums[0] + group.sums[1], set1(group.scale), set1(group.sum)};
    } else {  // half a group
      const ActivationGroup& group = groups[unit / 2];
      const std::int32_t sum = group.sums[unit % 2];
      return {codes + unit / 2 * 2 * kActivationGroup + unit % 2 * kColumns, sum, set1(group.scale),
              set1(group.scale * static_cast<float>(sum))};
    }
  }
};

/// Asks for what lies kAhead bytes behind `at` in its panel, or as far behind the panel's end (or that of its part
/// that is walked) in what the walk takes next, `stride` bytes behind the panel's begin. Into the second-level cache,
/// and so early, since the first level has too few places for loads under way.
LANNER_INLINE void prefetch_ahead(const std::byte* panel, std::int64_t at, std::int64_t bytes, std::int64_t panel_bytes,
                                  std::int64_t stride) {
  constexpr std::int64_t kAhead = 16384;
  std::int64_t to = at + kAhead;
  if (to >= panel_bytes) to += stride - panel_bytes;
  for (std::int64_t line = 0; line < bytes; line += 64) prefetch(panel + to + line);
}

}  // namespace lanner::ops::cpu::LANNER_ISA
